"""The world around the product's code: a store, a log, producers, hosts, devices, and what goes wrong."""

from pushy.heads import Action, Read, Refuse, Tell
from stagecast.broadcast import Broadcast
from tests.model import parts
from tests.model.parts import NOTHING
from tests.model.search import Move, Result, search
from tests.model.state import (
    AWAY,
    FAULTS,
    LAZY,
    UNRESOLVED,
    Asked,
    Device,
    Host,
    Moves,
    Producer,
    Rules,
    World,
    with_device,
    with_host,
    with_producer,
)


class Model:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def start(self) -> World:
        head = parts.created(1, "c")
        host = Host(parts.new_feed(), UNRESOLVED, (), True, (), parts.new_worker(), (0, 0))
        return World(
            head, 1, head, 1, frozenset({(1, 1, "c")}), frozenset(), (Producer(),) * self.rules.producers, (),
            (host,) * self.rules.hosts, (Device(AWAY, parts.new_device(), NOTHING, False),) * self.rules.devices, False,
            self.rules.budget,
        )  # fmt: skip

    def run(self) -> Result:
        return search(self.start(), self.moves, self.broken, self.unfinished)

    def moves(self, w: World) -> Moves:
        for i in range(len(w.producers)):
            yield from self._producer(w, i)
        yield from self._flights(w)
        for i in range(len(w.hosts)):
            yield from self._host(w, i)
        for i in range(len(w.devices)):
            yield from self._device(w, i)
        yield from self._repair(w)
        if w.log and (t := self._spent(w, "loss")):
            hosts = tuple(self._gap(h) if h.position == len(w.log) else h for h in t.hosts)
            yield Move(False, "the log loses its last record", self._pruned(t._replace(log=w.log[:-1], hosts=hosts)))

    # -- producers, store, log

    def _producer(self, w: World, i: int) -> Moves:
        p, name = w.producers[i], f"producer {i}"
        match p.at:
            case "idle":
                yield from self._wishes(w, i)
            case "read":
                yield Move(True, f"{name} reads the head for {p.request}", self._judge(w, i))
            case "set":
                yield from self._set(w, i)
            case "append":
                yield from self._append(w, i)
        if p.at != "idle" and (t := self._spent(w, "crash_p")):
            yield Move(False, f"{name} crashes before {p.at}", with_producer(t, i, Producer()))

    def _wishes(self, w: World, i: int) -> Moves:
        wishes = [("requests", "r"), ("delete", "d"), ("create", "c")]
        for kind, letter in wishes:
            if kind == "create" and not parts.head_of(w.head).gone:
                continue
            if t := self._spent(w, kind):
                request = f"{letter}{w.budget[FAULTS.index(kind)]}"
                yield Move(
                    False, f"producer {i} is asked for {request}", with_producer(t, i, Producer("read", request))
                )
        if t := self._spent(w, "again"):
            known = {request for _, _, request in w.accepted} | {p.request for p in w.producers}
            for request in sorted(request for request in known if request.startswith("r")):
                yield Move(
                    False, f"producer {i} is asked for {request} again", with_producer(t, i, Producer("read", request))
                )

    def _judge(self, w: World, i: int) -> World:
        p = w.producers[i]
        if p.request[0] == "c":
            if not parts.head_of(w.head).gone:
                return with_producer(w, i, Producer())
            gen = w.gen + 1 if self.rules.gens else w.gen
            made = parts.created(gen, p.request)
            return with_producer(w, i, Producer("set", p.request, made, w.version))._replace(gen=gen)
        verdict = parts.judged(w.head, p.request, self.rules.remember)
        if verdict is None:
            return with_producer(w, i, Producer())
        return with_producer(w, i, Producer("set" if verdict.new else "append", p.request, verdict.head, w.version))

    def _set(self, w: World, i: int) -> Moves:
        p = w.producers[i]
        done = self._stored(w, p.version, p.head, p.request)
        what = f"producer {i} sets {parts.shown_of(p.head)}"
        if done is None:
            yield Move(True, f"{what}: lost the race", with_producer(w, i, Producer("read", p.request)))
        else:
            yield Move(True, what, with_producer(done, i, Producer("append", head=p.head)))
            if t := self._spent(done, "cas_lost"):
                yield Move(
                    False, f"{what}: done, but the answer is lost", with_producer(t, i, Producer("read", p.request))
                )
        if t := self._spent(w, "cas_late"):
            late = t.flight | {("set", p.version, p.head, p.request)}
            after = with_producer(t, i, Producer("read", p.request))
            yield Move(False, f"{what}: no answer, may land later", after._replace(flight=late))

    def _stored(self, w: World, version: int, head: bytes, request: str) -> World | None:
        if self.rules.compare_and_set and version != w.version:
            return None
        entry = (*parts.order_of(head), request)
        if entry in w.accepted or any(entry[:2] == other[:2] for other in w.accepted):
            entry = (*entry[:2], f"{request} over another")
        return w._replace(head=head, before=w.head, version=w.version + 1, accepted=w.accepted | {entry})

    def _append(self, w: World, i: int) -> Moves:
        head = w.producers[i].head
        said, what = parts.broadcast_of(head), f"producer {i} appends {parts.shown_of(head)}"
        idle = with_producer(w, i, Producer())
        yield Move(True, what, self._said(idle, said))
        if t := self._spent(idle, "dup"):
            yield Move(False, f"{what} twice", self._said(self._said(t, said), said))
        if t := self._spent(idle, "append_lost"):
            yield Move(False, f"{what}: lost", t)
        if t := self._spent(idle, "append_late"):
            flight = t.flight | {("append", 0, head, "")}
            yield Move(False, f"{what}: no answer, may land later", t._replace(flight=flight))

    def _flights(self, w: World) -> Moves:
        for one in w.flight:
            kind, version, head, request = one
            t = w._replace(flight=w.flight - {one})
            if kind == "append":
                yield Move(True, f"the append of {parts.shown_of(head)} lands", self._said(t, parts.broadcast_of(head)))
            else:
                landed = self._stored(t, version, head, request)
                yield Move(
                    True, f"the set of {parts.shown_of(head)} {'lands' if landed else 'fails'} late", landed or t
                )
        if w.before != w.head and (spent := self._spent(w, "old")):
            old = parts.broadcast_of(w.before)
            yield Move(False, f"a producer behind the times appends {parts.shown_of(w.before)}", self._said(spent, old))

    def _said(self, w: World, said: Broadcast) -> World:
        return self._pruned(w._replace(log=(*w.log, said)))

    def _repair(self, w: World) -> Moves:
        """Cadence and silence, when nothing else is under way and somebody is behind."""
        busy = w.flight or any(p.at != "idle" for p in w.producers)
        if busy or w.repaired or all(d.host != AWAY and d.shown == parts.shown_of(w.head) for d in w.devices):
            return
        if any(h.position != len(w.log) or h.asked or h.link or h.again or not h.joined for h in w.hosts):
            return
        if self.rules.cadence and parts.active(w.head):
            if self.rules.gone_repeated or not parts.head_of(w.head).gone:
                t = self._said(w, parts.broadcast_of(w.head))
                yield Move(True, f"the cadence appends {parts.shown_of(w.head)}", t._replace(repaired=True))
        elif self.rules.silence:
            t = w._replace(repaired=True)
            for i in range(len(w.hosts)):
                t = self._fed(t, i, "reread")
            yield Move(True, "the log is silent: hosts read the heads", t)

    # -- hosts

    def _host(self, w: World, i: int) -> Moves:
        h, name = w.hosts[i], f"host {i}"
        yield from self._reader(w, i)
        for n, asked in enumerate(h.asked):
            yield from self._store_answers(w, i, n, asked)
        if h.link:
            t = with_host(w, i, h._replace(link=h.link[1:]))
            if (update := h.link[0]) is None:
                yield Move(True, f"{name} refuses its devices", self._refused(t, i))
            else:
                call = "update" if self.rules.hub_drops else "take_any"
                yield Move(True, f"{name} passes {update.gen, update.seq} on", self._worker(t, i, call, update))
        if not h.joined or h.again:
            t = with_host(w, i, h._replace(joined=True, again=False))
            yield Move(
                True,
                f"the worker of {name} {'asks again' if h.joined else 'joins its feed'}",
                self._fed(t, i, "follow", 0, parts.followed(h.worker), 0.0),
            )
        retried, actions = parts.feed(h.feed, "unverified", 10.0)
        if actions:
            yield Move(
                True, f"{name} asks the store again", self._act(with_host(w, i, h._replace(feed=retried)), i, actions)
            )
        yield from self._host_faults(w, i)

    def _reader(self, w: World, i: int) -> Moves:
        h, name = w.hosts[i], f"host {i}"
        if h.position == UNRESOLVED:
            if self.rules.end_first and self.rules.end_explicit:
                t = with_host(w, i, h._replace(position=len(w.log)))
                yield Move(True, f"{name} resolves the log's end", self._pruned(self._fed(t, i, "resolved")))
            else:
                t = with_host(w, i, h._replace(position=LAZY))
                yield Move(True, f"{name} believes that it has resolved the log's end", self._fed(t, i, "resolved"))
        elif h.position == LAZY:
            if not self.rules.end_explicit or (h.order != (0, 0) and not h.asked):
                t = with_host(w, i, h._replace(position=len(w.log)))
                yield Move(True, f"{name} now reads from the log's end", self._pruned(t))
        elif h.position < len(w.log):
            said = w.log[h.position]
            t = self._fed(with_host(w, i, h._replace(position=h.position + 1)), i, "said", said)
            yield Move(True, f"{name} reads {said.order} from the log", self._pruned(t))

    def _store_answers(self, w: World, i: int, n: int, asked: Asked) -> Moves:
        h, name = w.hosts[i], f"host {i}"
        rest = (*h.asked[:n], *h.asked[n + 1 :])
        if asked.answer is not None:
            t = with_host(w, i, h._replace(asked=rest))
            yield Move(
                True,
                f"{name} hears {asked.answer.order} from the store",
                self._fed(t, i, "found", asked.read, asked.answer),
            )
            return
        for fault, head in (("", w.head), ("stale", w.before)):
            spent = self._spent(w, fault) if fault else w
            if spent and (not fault or head != w.head):
                answered = Asked(asked.read, parts.broadcast_of(head))
                label = f"the store answers {name}{' from a stale replica' if fault else ''}: {parts.shown_of(head)}"
                yield Move(not fault, label, with_host(spent, i, h._replace(asked=(*rest, answered))))
        if down := self._spent(w, "kv_down"):
            t = with_host(down, i, h._replace(asked=rest))
            yield Move(False, f"the store does not answer {name}", self._fed(t, i, "failed", asked.read, 0.0))

    def _host_faults(self, w: World, i: int) -> Moves:
        h, name = w.hosts[i], f"host {i}"
        if h.position >= 0 and h.position < len(w.log) and (t := self._spent(w, "gap")):
            gone = self._gap(h) if self.rules.gap_noticed else h._replace(position=len(w.log))
            yield Move(False, f"retention passes {name}", self._pruned(with_host(t, i, gone)))
        if h.position != UNRESOLVED and (t := self._spent(w, "crash_feed")):
            fresh = Host(parts.new_feed(), UNRESOLVED, (), False, (), h.worker, h.order)
            yield Move(False, f"the feed of {name} crashes", self._pruned(with_host(t, i, fresh)))
        if h.order != (0, 0) and all(d.host != i for d in w.devices) and (t := self._spent(w, "linger")):
            yield Move(False, f"the worker of {name} forgets the event", self._worker(t, i, "linger"))
        if (h.order != (0, 0) or any(d.host == i for d in w.devices)) and (t := self._spent(w, "crash_worker")):
            left, _ = parts.feed(h.feed, "left", 0)
            t = with_host(
                t, i, h._replace(feed=left, link=(), worker=parts.new_worker(), order=(0, 0), joined=True, again=False)
            )
            for n, d in enumerate(w.devices):
                if d.host == i:
                    t = with_device(t, n, self._away(d))
            yield Move(False, f"the worker of {name} crashes", t)

    def _gap(self, h: Host) -> Host:
        """What `pushy.roads` does with a LogGap: nothing is verified until the end is resolved anew."""
        lost, _ = parts.feed(h.feed, "lost")
        return h._replace(feed=lost, position=UNRESOLVED)

    def _fed(self, w: World, i: int, call: str, *args: object) -> World:
        after, actions = parts.feed(w.hosts[i].feed, call, *args)
        return self._act(with_host(w, i, w.hosts[i]._replace(feed=after)), i, actions)

    def _act(self, w: World, i: int, actions: tuple[Action, ...]) -> World:
        h = w.hosts[i]
        for action in actions:
            match action:
                case Tell(_, head) if h.joined:
                    h = h._replace(link=(*h.link, parts.update_of(head)), told=head.order)
                case Refuse() if h.joined:
                    h = h._replace(link=(*h.link, None))
                case Read():
                    h = h._replace(asked=(*h.asked, Asked(action, None)))
        return with_host(w, i, h)

    def _worker(self, w: World, i: int, call: str, *args: object) -> World:
        said = parts.worker(w.hosts[i].worker, call, *args)
        w = with_host(w, i, w.hosts[i]._replace(worker=said.worker, order=said.order))
        for n, frame in said.frames:
            d = w.devices[n]
            got = (
                parts.device(d.session, "receive", frame)
                if self.rules.device_drops
                else parts.forgetful(d.session, frame)
            )
            w = with_device(w, n, d._replace(session=got[0], shown=got[1], refused=False))
        if said.follow and w.hosts[i].joined:
            w = self._fed(w, i, "follow", 0, (parts.EVENT,), 0.0)
        if said.unfollow and w.hosts[i].joined:
            w = self._fed(w, i, "unfollow", 0, (parts.EVENT,))
        return w

    def _refused(self, w: World, i: int) -> World:
        told = self._worker(w, i, "refused")
        if told.hosts[i].order != (0, 0):
            return with_host(told, i, told.hosts[i]._replace(again=self.rules.asks_again))
        waiting = tuple(d._replace(refused=True) if d.host == i else d for d in told.devices)
        return told._replace(devices=waiting)

    # -- devices

    def _device(self, w: World, n: int) -> Moves:
        d, name = w.devices[n], f"device {n}"
        if d.host == AWAY:
            for i, h in enumerate(w.hosts):
                if h.position != UNRESOLVED:  # accepts devices once the end is resolved
                    session, shown = parts.device(d.session, "opened", "token")
                    t = with_device(w, n, Device(i, session, shown, False))
                    yield Move(True, f"{name} connects to host {i}", self._worker(t, i, "hello", str(n)))
            return
        if d.refused:
            t = with_device(w, n, d._replace(refused=False))
            yield Move(True, f"{name} asks again", self._worker(t, d.host, "hello", str(n)))
        if cut := self._spent(w, "cut"):
            t = self._worker(with_device(cut, n, self._away(d)), d.host, "gone", str(n))
            yield Move(False, f"{name} is cut off", t)

    def _away(self, d: Device) -> Device:
        session, shown = parts.device(d.session, "closed")
        return Device(AWAY, session, shown, False)

    # -- bookkeeping and promises

    def _spent(self, w: World, fault: str) -> World | None:
        place = FAULTS.index(fault)
        if not w.budget[place]:
            return None
        budget = (*w.budget[:place], w.budget[place] - 1, *w.budget[place + 1 :])
        return w._replace(budget=budget, repaired=False)

    def _pruned(self, w: World) -> World:
        """Forgets what every reader has passed."""
        passed = min((h.position for h in w.hosts if h.position >= 0), default=len(w.log))
        if not passed:
            return w
        hosts = tuple(h._replace(position=h.position - passed) if h.position >= 0 else h for h in w.hosts)
        return w._replace(log=w.log[passed:], hosts=hosts)

    def broken(self, w: World, to: World) -> str | None:
        for before, after in zip(w.devices, to.devices, strict=True):
            if after.shown[:2] < before.shown[:2] or (
                after.shown[:2] == before.shown[:2] and after.shown != before.shown
            ):
                return f"S1 a device goes from {before.shown} to {after.shown}"
            if after.shown != NOTHING and after.shown[:2] not in {one[:2] for one in to.accepted}:
                return f"S2 a device shows {after.shown}, which was never accepted"
        if to.accepted is not w.accepted:
            requests = [(gen, request) for gen, _, request in to.accepted]
            if any("over" in request for _, request in requests):
                return f"S3 accepted twice: {sorted(to.accepted - w.accepted)}"
            if len(requests) != len(set(requests)):
                return f"S4 a request accepted twice: {sorted(to.accepted)}"
        if parts.order_of(to.head) < parts.order_of(w.head):
            return f"S5 the head goes from {parts.shown_of(w.head)} to {parts.shown_of(to.head)}"
        for was, now in zip(w.hosts, to.hosts, strict=True):
            if (0, 0) != now.order < was.order:
                return f"S6 a worker goes from {was.order} to {now.order}"
            if (0, 0) != now.told < was.told:
                return f"S6 a feed tells {now.told} after {was.told}"
        return None

    def unfinished(self, w: World) -> str | None:
        head = parts.shown_of(w.head)
        if all(d.host != AWAY and d.shown == head for d in w.devices):
            return None
        return f"L1 quiescent at {head}, devices show {[d.shown for d in w.devices]}"
