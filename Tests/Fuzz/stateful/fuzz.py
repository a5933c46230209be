"""Carries out a plan against a world: steps, restarts and kills, and what must hold in between."""

import json
import re
import time
import zlib

import bodies
import codes
import heavy
import values
import wire
from mischief import Mischief
from model import Awaited, Model, token_of
from net import Net, short
from states import Seen, States, bounded, fit
from traffic import Traffic
from verify import Verifier
from watch import Watch
from world import Finding, World

TOPIC_CODES = {17, 18, 103, 215, 216, 217, 513, 31002}
LETTERS = dict(a="producerGroup", b="topic", e="queueId", f="sysFlag", i="properties", j="reconsumeTimes", m="batch")

HEARTBEAT = json.dumps({
    "clientID": "127.0.0.1@verified", "producerDataSet": [{"groupName": "verified-producer"}], "consumerDataSet": []}).encode()


class Fuzz:
    def __init__(self, binaries, base, seed, settings, options):
        self.seed, self.options = seed, options
        self.world = World(binaries, base, settings)
        self.net = Net()
        self.model = Model(seed, base + "/escape")
        self.traffic = Traffic(self)
        self.mischief = Mischief(self)
        self.states = States(self)
        self.verifier = Verifier(self.world, self.net, self.model)
        self.watch = Watch(self.world, options.stall, options.memory, options.passed)
        self.net.chores.append(self.watch.look)
        self.net.chores.append(self.beat)
        self.net.late = self.model.late = lambda: self.watch.late
        self.connections = {}
        self.own = None
        # When its last heartbeat was sent.
        self.beaten = 0.0
        self.to_check = set()
        self.counts = {"steps": 0, "requests": 0, "refused": 0, "restarts": 0, "kills": 0, "starved": 0,
                       "states": 0, "no states": 0, "strikes": 0}
        self.levels = [float(each.rstrip("s")) for each in settings.get("messageDelayLevel", "1s 2s").split()]
        self.last = []

    def unanswered(self, text):
        """No answer: because of who went away, or else the answer itself is missing."""
        self.look_for_ends()
        raise Finding("answer", text)

    def look_for_ends(self):
        """Raises when a worker has ended: that explains what else is missing."""
        self.net.wait(1.0)
        self.watch.look(force=True)

    # Life of the platform

    def delay(self, level):
        """Seconds a delay level takes; no level at all is one nobody knows."""
        if not self.levels or level < 0:
            return 1
        return self.levels[min(max(level, 1), len(self.levels)) - 1]

    def begin(self):
        self.world.start()
        self.reconnect()
        made = {"defaultTopic": "TBW102", "readQueueNums": 4, "writeQueueNums": 4, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}
        for topic in self.model.own_topics + ["FuzzHold", "FuzzBig"]:
            answer = self.traffic.ask(17, {**made, "topic": topic})
            if answer.code != 0:
                raise Finding("answer", f"topic {topic} was not made: {answer.code} {answer.remark}")
        self.states.begin()
        self.watch.tell()

    def reconnect(self):
        """Connections as a client has them after a restart."""
        for name in list(self.connections):
            self.connections.pop(name).close()
        self.verifier.forget()
        if self.own:
            self.own.close()
        self.own = self.net.connect("own", self.world.broker)
        self.own.serve = self.serve_own
        self.beaten = time.monotonic()
        if self.net.ask(self.own, 34, {}, HEARTBEAT) is None:
            raise Finding("start", "the broker does not answer a heartbeat after its start")

    def beat(self):
        """As clients do every 30 s: the broker closes the connection of one it has not heard of for 120 s."""
        if self.own and not self.own.closed and time.monotonic() - self.beaten > 20:
            self.beaten = time.monotonic()
            self.own.request(34, {}, HEARTBEAT)

    def revive(self, starved):
        """Goes on after workers were killed that the machine had given no CPU, as after a kill -9."""
        self.watch.hush()
        self.counts["starved"] += 1
        self.model.kills += 1
        self.world.await_others(starved.ended, self.net.until)
        self.net.close_all()
        self.serve_again()
        self.reconnect()
        self.watch.tell()
        self.traffic.check_offsets(killed=True)

    def connection(self, dice, target):
        return self.connection_of(target, dice.randrange(5))

    def connection_of(self, target, number):
        port = self.world.broker if target == "b" else self.world.nameserver
        name = f"{target}{number}"
        found = self.connections.get(name)
        if not found or found.closed:
            found = self.connections[name] = self.net.connect(name, port)
            found.serve = self.serve
        return found

    def serve_own(self, connection, request):
        """The broker asks what became of a transaction."""
        if request.code != 39:
            return
        try:
            record = wire.records(request.body)[0]
        except (ValueError, IndexError) as error:
            raise Finding("foreign", f"a check of a transaction carries no record: {error}")
        if token_of(record.body) in self.to_check:
            connection.request(37, {
                "producerGroup": "verified-producer", "tranStateTableOffset": request.fields["tranStateTableOffset"],
                "commitLogOffset": request.fields["commitLogOffset"], "commitOrRollback": 8,
                "fromTransactionCheck": "true", "msgId": request.fields.get("msgId", ""),
                "transactionId": request.fields.get("transactionId", "")}, flag=wire.ONEWAY)

    def serve(self, connection, request):
        """What the broker asks of clients is answered seldom, and then with anything."""
        dice = values.Dice(f"{self.seed}:serve:{self.model.step}:{request.code}")
        if request.flag & wire.ONEWAY or dice.chance(50):
            return
        body = dice.choice([b"", b"{}", b"[", b"\xff" * 50, b'{"consumeResult":"CR_SUCCESS"}', b"x" * 100_000])
        connection.write(wire.frame(dice.choice([0, 1, -1, 2**31 - 1]), {"x": "y"}, body, request.opaque, 1))

    # Steps

    def perform(self, step):
        self.model.step = step["n"]
        dice = values.Dice(f"{self.seed}:{step['n']}")
        self.last.append((step["n"], step["kind"]))
        del self.last[:-40]
        self.counts["steps"] += 1
        kind = step["kind"]
        if kind in ("request", "burst"):
            self.request(codes.draw(dice.of("code"), self.options.focus), dice, 40 if kind == "burst" else 1)
        elif kind.startswith("code:"):
            self.request(codes.BY_NUMBER[int(kind[5:])], dice, 4)
        elif kind == "state":
            self.states.step(dice)
        elif kind == "mischief":
            self.mischief.step(dice)
        elif kind.startswith("heavy:"):
            began = time.monotonic()
            getattr(heavy, kind[6:])(self, dice, step["scale"])
            self.say(f"{kind} × {step['scale']}: {time.monotonic() - began:.1f} s")
        else:
            getattr(self.traffic, kind)(dice)
        self.net.poll(0)
        # As much as a few busy clients have under way.
        self.net.until(lambda: sum(len(each.pending) for each in self.net.all) < 300, 0.5)

    def request(self, code, dice, count):
        if code.destroys and count > 1:
            count = 4
        for index in range(count):
            own = dice.of(index)
            # A good part takes names that state was made for.
            spot = self.states.spot(own.of("spot"), code.number) if code in codes.STRIKES and own.of("strikes").chance(35) else None
            self.one(code, own, dice, spot)

    def one(self, code, dice, place, spot=None):
        """At a spot it names what lies there, and most often nothing but a number or two is wrong."""
        model, at_bound = self.model, None
        if spot:
            model = Seen(self.model, spot)
            self.counts["strikes"] += 1
            at_bound = bounded(code, dice.of("bounds")) if dice.of("bound").chance(70) else None
        spirit = dice.random() * 100
        tainted = dice.choice([name for name, _, _ in code.fields] + ["body"]) if spirit > 50 else None
        modes = {}

        def mode(name):
            if at_bound is not None:
                modes[name] = "bound" if name in at_bound else "valid"
            elif spirit > 85:
                modes[name] = dice.of(name + "/mode").choices(["valid", "near", "hostile"], [80, 15, 5])[0]
            else:
                modes[name] = "valid" if name != tainted else dice.choice(["near", "near", "hostile"])
            return modes[name]
        said = {}
        for name, kind, optional in code.fields:
            if optional and dice.of(name + "/there").chance(35) or dice.of(name + "/gone").chance(0.7):
                continue
            said[name] = values.draw(kind, dice.of(name), model, mode(name), said)
        if spot and code.number == 31002:
            said = fit(said, at_bound or (), dice.of("fit"))
        body = bodies.draw(code.body, dice.of("body"), model, mode("body")) if code.body else b""
        if code.number == 103 and said.get("compressed") == "true" and dice.chance(90):
            body = zlib.compress(body)
        if code.destroys and self.hits_own(code.number, said, body):
            return
        try:
            connection = self.connection(place.of("connection"), dice.choice(code.target))
        except OSError:
            return
        how = {"binary": dice.chance(40), "language": dice.choice(wire.LANGUAGES), "version": dice.choice([409, 409, 453, 0, 32767])}
        if dice.chance(5):
            how["flag"] = wire.ONEWAY
        odd = any(each != "valid" for each in modes.values())
        self.counts["requests"] += 1
        then = self.expectation(code.number, said, body, odd)
        spot = spot or self.states.named_by(code.number, said)
        if spot:
            expected = then

            def then(answer):
                spot.heard(code.number, said, answer)
                if expected:
                    expected(answer)
        connection.request(code.number, said, body, then, **how)

    def hits_own(self, code, said, body):
        """It would by right destroy what the verified traffic uses. After that nothing is expected of what it names."""
        own = set(self.model.own_topics) if code in TOPIC_CODES else set(self.model.verified_groups)
        own |= {"broker-a"} | ({"DefaultCluster"} if code == 103 and "broker-a" in said.values() else set())
        names = {str(value).strip() for value in said.values()}
        if names & own or any(b'"%s"' % name.encode() in body for name in own):
            return True
        if any(name.startswith(("VerifiedAgain", "verified-raised", "FuzzHold")) for name in names):
            return True
        # A position alone may be one of any topic.
        if code == 31002 and "offset" in said and "topic" not in said:
            return True
        if code in (215, 31002):
            for name in names:
                self.model.disturbed(name)
        if code in (17, 18, 513):
            self.model.reshaped |= names
            self.model.reshaped |= {topic for topic in self.model.topics if topic.encode() in body}
        if code in (200, 225, 207):
            # Also groups whose names stand beside the model's: one without retry queues keeps nothing that is sent back.
            self.model.regrouped |= names | {group for group in self.model.groups if group.encode() in body}
            self.model.regrouped |= {name.decode(errors="replace") for name in re.findall(rb'"groupName": ?"([^"\\]*)"', body)}
        return False

    # What an answer promises

    def expectation(self, code, said, body, odd):
        if code in (10, 310):
            said = {LETTERS.get(name, name): value for name, value in said.items()}
            epochs = {topic: self.model.epoch[topic] for topic in (said.get("topic"),)}
            step = self.model.step
            return lambda answer: answer and self.sent(said, body, odd, answer, epochs, step)
        if code == 36:
            return lambda answer: answer and self.sent_back(said, answer)
        if code == 215:
            return lambda answer: self.model.disturbed(str(said.get("topic")))
        return self.count

    def count(self, answer):
        if answer and answer.code != 0:
            self.counts["refused"] += 1

    def sent(self, said, body, odd, answer, epochs, step):
        self.count(answer)
        if answer.code != 0 or "queueOffset" not in answer.fields:
            return
        topic, pairs = said["topic"], {}
        for piece in said.get("properties", "").split("\x02"):
            name, _, value = piece.partition("\x01")
            pairs.setdefault(name, value)
        try:
            flags = int(said["sysFlag"])
            physical = int(answer.fields.get("msgId", "0")[-16:], 16)
        except ValueError:
            return
        if "TRAN_MSG" in pairs or flags & 12 or said.get("batch", "").lower() in ("true", "1"):
            if topic in self.model.unkept:
                return
            self.model.odd.append(physical)
            return
        # RocketMQ drops properties without a value.
        if pairs.get("DELAY"):
            return self.sent_delayed(topic, pairs["DELAY"], body, step)
        timers = [name for name in pairs if name.startswith("TIMER_")]
        if timers:
            if not odd:
                self.await_in(self.may_lie_in(topic), body, 3, "timer message", step)
            return
        if topic in self.model.unkept:
            return
        if topic.startswith("%"):
            return self.await_in(self.may_lie_in(topic), body, 1, "message", step)
        self.model.confirmed(topic, answer.number("queueId"), answer.number("queueOffset"), body, epochs[topic], physical,
                             odd, answer.fields.get("msgId"))

    def sent_delayed(self, topic, text, body, step):
        try:
            level = int(text) if text.strip() == text and text.isascii() else None
        except ValueError:
            level = None
        if level is None or not -2**31 <= level < 2**31:
            if topic.startswith("%RETRY%"):
                return  # One try too many makes it a dead letter, whose delay is over (RocketMQ sets DELAY to 0 as well).
            raise Finding("answer", f"step {step}: a send with DELAY {ascii(text)} was answered 0 instead of refused")
        self.await_in(self.may_lie_in(topic), body, self.delay(level) if level > 0 else 0, f"delay level {level}", step)

    def may_lie_in(self, topic):
        """A message sent to a retry topic with too many tries (`reconsumeTimes`) is a dead letter at once: RocketMQ's broker takes timer
        and delay from it and stores it in the group's dead-letter topic. How many are too many only the group's settings of that moment say."""
        group = topic.partition("%RETRY%")[2]
        return [topic, "%DLQ%" + group] if group else [topic]

    def await_in(self, topics, body, delay, kind, step):
        if self.model.unkept.intersection(topics):
            return
        self.model.awaited.append(Awaited(topics, body, time.time() + delay, kind, step, self.model))

    def sent_back(self, said, answer):
        self.count(answer)
        try:
            body, level = self.model.bodies.get(int(said["offset"])), int(said["delayLevel"])
        except (KeyError, ValueError):
            return
        if answer.code == 0 and body is not None and said["group"] not in self.model.regrouped:
            self.traffic.sent_back(said["group"], body, min(level, 18))

    # Ends of rounds

    def end_round(self, end):
        self.net.until(lambda: not self.own.pending, 10)
        self.net.wait(0.1)
        killed = end.startswith("kill")
        self.watch.look(force=True)
        if end == "time passes":
            # Longer than the scans for silent brokers (10 s) and the flushes of tables: with all that is held and registered.
            self.net.wait(11)
        runs_on = end in ("go on", "time passes")
        if not runs_on:
            self.watch.hush()
            self.counts["kills" if killed else "restarts"] += 1
        if killed:
            self.model.kills += 1
        if end == "stop":
            self.net.close_all()
            self.world.stop()
            self.world.start()
        elif end == "stop under load":
            self.world.stop()
            self.net.close_all()
            self.world.start()
        elif end == "kill platform":
            self.world.kill_all()
            self.net.close_all()
            self.world.start()
        elif killed:
            kind = end.removeprefix("kill ")
            self.world.kill(kind, self.net.until)
            self.net.wait(0.2)
        if not runs_on:
            self.serve_again()
            self.reconnect()
            self.watch.tell()
        self.verify(killed)

    def serve_again(self):
        """Until both ports take a request."""
        for port in (self.world.broker, self.world.nameserver):
            end = time.monotonic() + 30
            while True:
                try:
                    connection = self.net.connect("waits", port)
                    answer = self.net.ask(connection, 28 if port == self.world.broker else 206, {}, seconds=15)
                    connection.close()
                    if answer:
                        break
                except OSError:
                    pass
                if time.monotonic() > end:
                    raise Finding("start", "the next start does not serve: " + self.world.evidence())
                self.net.wait(0.1)

    def verify(self, killed=False, final=False):
        if final:
            self.net.wait(max(0.0, min(self.verifier.owed(), 30)) + 1.0)
        self.traffic.check_offsets(killed)
        self.verifier.verify(final)
        self.watch.look_at_files()
        nameserver = self.net.connect("routes", self.world.nameserver)
        if not killed:
            self.verifier.routes(nameserver)
        nameserver.close()

    def final(self):
        """Everything that is owed must come; a clean stop ends it."""
        end = time.monotonic() + 45
        while True:
            self.verify(final=True)
            if not self.model.awaited or time.monotonic() > end:
                break
            self.net.wait(0.5)
        self.watch.hush()
        self.net.close_all()
        self.world.stop()
        self.world.process = None

    def abandon(self):
        self.net.chores.clear()
        self.net.close_all()
        if self.world.process:
            self.world.kill_all()
        self.watch.end()

    def say(self, text):
        if self.options.verbose:
            print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)

    def history(self):
        """The last requests per connection."""
        lines = [f"last steps: {self.last}"]
        for connection in [*self.connections.values(), self.own, *self.mischief.open[-5:]]:
            if connection:
                lines.append(f"connection {connection.name}{f' (ended: {connection.why})' if connection.closed else ''}:")
                lines += [f"    {at} {said}" for at, said in connection.history]
        return lines
