"""Tables, figures and pages of the report."""
