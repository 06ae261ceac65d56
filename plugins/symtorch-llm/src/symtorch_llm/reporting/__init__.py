"""Reporting: findings, tables, claims and figures."""
