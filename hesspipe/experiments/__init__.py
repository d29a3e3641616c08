"""What one job of the pipeline computes, from files to a table."""
