"""The settings of a run, a section a class; `sdevid.config` puts them together."""
