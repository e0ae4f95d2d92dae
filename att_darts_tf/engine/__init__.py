"""How anything here is trained; knows no network and no search space."""
