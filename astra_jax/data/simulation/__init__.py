"""Simulated matches in the SoccerNet layout, so that training needs no downloaded data."""
