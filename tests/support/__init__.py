"""Builders, fakes and contract suites that the tests share."""
