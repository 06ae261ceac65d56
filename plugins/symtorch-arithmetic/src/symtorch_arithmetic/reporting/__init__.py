"""Reporting: tables, claims and figures."""
