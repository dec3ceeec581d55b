"""Video files of any origin: opened, inspected as a whole, decoded upright, in time and colour."""
