"""The commands of training; importing one of these modules loads no heavy package."""
