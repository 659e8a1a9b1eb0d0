"""An exhaustive check of the way of a broadcast, on the product's own pure code.

`python -m tests.model` walks every state that a small world can get into, breadth first, and prints for each scenario how many
states there are, and the shortest way to a broken promise where one is expected. `test_model.py` runs the same scenarios;
`test_path.py` walks at random through a larger world.

What is the product's own code here, called as the product calls it: the transition table (`stagecast.event`: create, transition,
delete, active), the broadcast's bytes, a host's merging of log and store (`pushy.heads.Heads`), a worker's hub (`pushy.hub.Hub`),
and a device's session (`stagecast.wire.client_session`). What is modelled around it: the store (one item with compare-and-set),
the log (one partition), the loop of a producer, links, connections, and everything that goes wrong.

The promises:

    S1  a device never goes back in (gen, seq)            S4  one request is accepted at most once in a gen
    S2  a device shows only what was accepted             S5  the head never goes back
    S3  one (gen, seq) is accepted at most once           S6  what a feed tells, and a worker welcomes with, never goes back
    L1  quiescent: every device is connected and shows the head

and of the hub alone, with slow readers:

    F1  at most one frame waits for a connection          F2  audience = written + pending + superseded + closed
    F3  no connection gets a state twice

A state is quiescent when a healthy system has nothing left to do by itself; faults and people spend a budget, so every run ends.
Time is logical: cadence, silence and retries are steps that happen when nothing else is under way, not clocks.

Exhausted: one event, one partition, up to two requests, producers, hosts (of one worker each) and devices, and the faults that a
scenario names, in every order. `fanout.py` exhausts the hub alone: three connections, chunks of one, slow readers, leavers.
Not claimed: more of anything, several events, Byzantine parts, a store that is not linearizable, timing.

A check that can't fail shows nothing: each mutation takes one rule away and must be caught.
"""
