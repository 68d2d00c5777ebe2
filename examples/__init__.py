"""Programs that show the platform at work; each is run by the tests."""
