"""What joins the library to Snakemake and DVC: code closures, job logs, stages, adoption."""
