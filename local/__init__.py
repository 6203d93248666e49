"""The whole stack on one machine: two servers, the API, the worker, beat and Flower under one supervisor."""
