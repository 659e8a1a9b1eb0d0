"""Load tests with Locust: a user is a swarm of thousands of devices, and an oracle checks that none was left behind."""
