"""The search as an estimator of scikit-learn, which is imported only where it is used."""
