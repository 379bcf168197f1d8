"""The report: one HTML file that needs nothing else, and the tables and plots beside it."""
