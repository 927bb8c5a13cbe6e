"""What spans the stages: the quickstart; research questions as grids over the stages."""
