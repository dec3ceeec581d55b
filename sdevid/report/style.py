"""How the page looks: one style sheet, for light and dark."""

CSS = """
:root {
  color-scheme: light dark;
  --ground: #fcfcfa; --ink: #1d1f23; --quiet: #63676f; --rule: #dcdcd6; --soft: #f3f3ef;
  --generated: #1f5fa8; --real: #b4500f; --truth: #1d1f23; --exact: #8a8e96; --fourth: #3f7d4e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181b; --ink: #e3e3df; --quiet: #9a9ea6; --rule: #33363b; --soft: #1e2125;
    --generated: #76b0f0; --real: #eb9a5e; --truth: #e3e3df; --exact: #7d828b; --fourth: #86c795;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 4rem; background: var(--ground);
  color: var(--ink);
  font: 15px/1.55 ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.7rem; font-weight: 600; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 3rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: .95rem; font-weight: 600; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.quiet, figcaption { color: var(--quiet); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .85rem; margin-top: .4rem; }
.findings { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr));
  gap: 1.5rem; margin: 1.6rem 0 1rem; }
.finding { border-top: 2px solid var(--ink); padding-top: .5rem; }
.finding b { display: block; font-size: 1.55rem; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.finding span { font-size: .85rem; color: var(--quiet); }
.finding .name { color: var(--ink); }
.missing { border-left: 3px solid var(--real); padding: .2rem 0 .2rem .9rem; margin: 1rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr));
  gap: 1.6rem 1.8rem; margin: 1rem 0; }
.charts.small { grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.chart-title { font-size: .88rem; font-weight: 600; }
.chart-title small { font-weight: 400; color: var(--quiet); }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .8rem; color: var(--quiet);
  margin: .1rem 0 .2rem; min-height: 1.2rem; }
.legend i { display: inline-block; width: 1.1rem; height: 0; margin-right: .35rem;
  vertical-align: middle; border-top: 2px solid; }
.legend i.dashed { border-top-style: dashed; }
.legend i.points { width: .5rem; height: .5rem; border: 0; border-radius: 50%;
  background: currentColor; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-size: 11px; fill: var(--quiet); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 5 4; }
svg .band { fill: currentColor; opacity: .14; }
svg .bar { stroke: currentColor; stroke-width: 1.2; }
svg .dot { fill: currentColor; }
.generated { color: var(--generated); } .real { color: var(--real); }
.truth { color: var(--truth); } .exact { color: var(--exact); } .fourth { color: var(--fourth); }
.legend em { font-style: normal; color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums;
  margin: .8rem 0; }
th, td { padding: .3rem 0 .3rem 1.5rem; text-align: right; }
td { white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th:first-child, td:first-child { text-align: left; }
thead th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
tbody tr + tr td { border-top: 1px solid var(--rule); }
td.best { font-weight: 600; }
td small { color: var(--quiet); }
img { image-rendering: pixelated; display: block; width: 100%; height: auto; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.8rem; max-width: 44rem; }
.strip { display: grid; grid-template-columns: 5.2rem 1fr; gap: .25rem .8rem; align-items: center;
  margin: 1rem 0 1.6rem; font-size: .82rem; color: var(--quiet); min-width: 38rem; }
.spans { display: flex; }
.spans div { border-bottom: 1px solid var(--quiet); margin-right: 3px; padding-bottom: .1rem; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; font: 12.5px/1.5 ui-monospace,
  "DejaVu Sans Mono", monospace; border-radius: 3px; margin: .6rem 0; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .8rem 0; }
dt { color: var(--quiet); } dd { margin: 0; }
@media (max-width: 34rem) { .pair { gap: .8rem; } body { padding: 1.5rem 1rem 3rem; } }
@media print {
  body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; }
}
"""
