"""What keeps a run sound: nodes, stalls, slow ranks, damaged clips, lost steps, memory."""
