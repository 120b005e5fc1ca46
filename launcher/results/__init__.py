"""What is kept of a run and what is made of it: CSV rows, statistics, SVG plots, tables."""
