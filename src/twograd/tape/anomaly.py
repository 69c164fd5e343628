"""Anomaly detection."""


def checked(pull):
    return pull
