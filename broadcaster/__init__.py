"""The broadcaster: accepts transitions (people's and the plan's), makes them durable, and says them to the log for ever again."""
