"""Results for people: tables and plots made from stored results, never from a run in memory."""
