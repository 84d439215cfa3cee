"""What MLflow's pages of this project show, and where they are."""
