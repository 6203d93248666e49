"""Acts on a study: each a function in one transaction, whoever asks. Knows neither Flask nor Celery."""
