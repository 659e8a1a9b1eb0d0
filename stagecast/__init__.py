"""What all tiers of Stagecast agree on: events, broadcasts, the device protocol, the message log."""
