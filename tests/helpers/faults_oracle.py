"""The slow, obvious clock with faults: rounds that end early, clients that come and leave, traces, deadlines.

As `clock_oracle.py`, from which it takes how bytes move from moment to moment. Shares with `prfl_jax.clock` besides
only what is drawn for a dispatch (which has a test of its own).
"""

from __future__ import annotations

import math

from clock_oracle import MB, Oracle

from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, draw_idle
from prfl_jax.clock.faults import FaultDraws


class Copy:
    """The second copy of an update."""

    phase = "copy"

    def __init__(self, job, rate, now):
        self.client, self.index, self.begun = job.client, job.index, now
        self.up_need, self.up_got, self.up_rate = job.up_need, 0, rate


class FaultyOracle(Oracle):
    """
    Args:
      faults: only its probabilities count.
      intervals: client -> [(from, to)]; whoever is not in it is always there.
      traces: client -> [(time, up, down)] in MB/s.
      exact: as for `Oracle`.
    """

    def __init__(self, network, rule, transport, seed, costs, faults, intervals, traces, exact=False):
        super().__init__(network, rule, transport, seed, costs, exact)
        self.fates, self.intervals, self.traces = FaultDraws(seed, faults), intervals, traces
        self.drawn, self.copies = 0, {}

    def there(self, client):
        return any(a <= self.now < b for a, b in self.intervals.get(client, [(0.0, math.inf)]))

    def next_change(self):
        bounds = [t for own in self.intervals.values() for interval in own for t in interval]
        return min((t for t in bounds if t > self.now), default=math.inf)

    def idle(self):
        return [i for i in range(self.m) if i not in self.jobs and self.there(i)]

    def chosen(self, among):
        if not self.rule.cohort:
            return [i for i in self.idle() if i in among]
        count = min(self.rule.cohort - len(self.jobs), len(self.idle()))
        if count <= 0:
            return []
        self.drawn += 1
        busy = set(range(self.m)) - set(self.idle())
        return draw_idle(self.seed, self.drawn, count, self.m, busy)

    def draw_cohort(self, count):
        return []  # `Oracle` draws the first when it is made

    def trace_rate(self, client, column, size, factor, otherwise):
        """The constant rate that takes as long, found by walking from one change of speed to the next."""
        lines = self.traces.get(client)
        if lines is None or size == 0:
            return otherwise if lines is None else self.number(1)
        left, now = size, self.now
        while True:
            speed = ([line for line in lines if line[0] <= now] or lines[:1])[-1][column] * MB * factor
            change = min((line[0] for line in lines if line[0] > now), default=math.inf)
            if now + left / speed <= change:
                return size / (now + left / speed - self.now)
            left -= speed * (change - now)
            now = change

    def up_rate(self, job):
        factor = self.factor(CLIENT_UP, job.client, job.index)
        otherwise = MB * self.net.client_up[job.client] * factor
        return self.trace_rate(job.client, 1, job.up_need, factor, otherwise)

    def dispatch(self, clients):
        will_send = super().dispatch(clients)
        for i in clients:
            job = self.jobs[i]
            job.fate, share = self.fates.of(i, job.index)
            job.compute *= self.number(share)
            factor = self.factor(CLIENT_DOWN, i, job.index)
            job.down_rate = self.trace_rate(i, 2, job.mask_need + job.need, factor, job.down_rate)
        return will_send

    def instant(self):
        """Everything that is finished by now moves on; so do failures and copies that end."""
        again = True
        self.failed, self.ended_copies = [], []
        while again:
            again = False
            for job in list(self.jobs.values()):
                if job.phase == "mask" and job.mask_got >= job.mask_need - self.eps:
                    job.phase, again = "values", True
                if job.phase == "values" and job.got >= job.need - self.eps:
                    job.phase, again = "compute", True
                    job.downloaded, job.computed = self.now, self.now + job.compute
                if job.phase == "compute" and job.computed <= self.now + self.tie * max(1, self.now):
                    again = True
                    if job.fate in ("dropout", "crash"):
                        self.fail(job, job.fate)
                    else:
                        job.phase = "waits"
                if job.phase == "waits" and job.client not in self.copies:
                    job.phase, job.begun, job.up_rate, again = "upload", self.now, self.up_rate(job), True
                    self.up.append(job)
            for job in list(self.up):
                if job.up_got < job.up_need - self.eps:
                    continue
                again = True
                if job.phase == "copy":
                    self.end_copy(job)
                elif job.fate == "lost_upload":
                    self.fail(job, job.fate)
                else:
                    self.up.remove(job)
                    job.phase, job.arrived = "landed", self.now
                    if job.fate == "repeated_upload" and job.up_need:
                        self.copies[job.client] = Copy(job, self.up_rate(job), self.now)
                        self.up.append(self.copies[job.client])
            if not again:  # whoever leaves now leaves after that
                for i in range(self.m):
                    under_way = i in self.jobs and self.jobs[i].phase != "landed"
                    if not self.there(i) and (under_way or i in self.copies):
                        again = True
                        if under_way:
                            self.fail(self.jobs[i], "left")
                        if i in self.copies:
                            self.end_copy(self.copies[i])
        self.up.sort(key=lambda job: (job.begun, job.client))
        self.down = [stream for stream in self.down if stream.open() or stream in self.shared.values()]
        for listed in (self.failed, self.ended_copies):
            listed.sort(key=lambda job: job.client)

    def fail(self, job, kind):
        job.kind, job.failed_s = kind, self.now
        for stream in (job.mask_stream, job.stream):
            if stream is not None:
                stream.needs = [(other, need) for other, need in stream.needs if other is not job]
        if job.mask_got < job.mask_need - self.eps:
            self.has_mask[job.client] = False
        if job in self.up:
            self.up.remove(job)
        del self.jobs[job.client]
        self.failed.append(job)

    def end_copy(self, copy):
        copy.ended_s = self.now
        self.up.remove(copy)
        del self.copies[copy.client]
        self.ended_copies.append(copy)

    def step(self, capacities, limit):
        """To the next moment at which anything changes."""
        self.allocate(*capacities)
        steps = [self.next_step(-math.inf)]
        steps += [(c.up_need - c.up_got) / self.up_rates[c] for c in self.copies.values() if self.up_rates[c] > 0]
        target = min(limit if limit > self.now else math.inf, self.next_change())
        step = min(*steps, target - self.now)
        assert step < math.inf
        self.advance(step)
        if abs(self.now - target) < self.tie * max(1, abs(target)):
            self.now = target

    def next_step(self, limit):
        held = {i: job for i, job in self.jobs.items() if job.phase == "waits"}
        for i in held:
            del self.jobs[i]
        step = super().next_step(limit)
        self.jobs.update(held)
        return step

    def next_window(self):
        """(end, arrivals, failures, copies that ended, bytes sent, received by clients, received by the server)."""
        counters = self.bytes_down, self.bytes_client_down, self.bytes_up
        start, number, rule = self.now, self.n + 1, self.rule
        capacities = self.capacities(number)
        first = number == 1 and rule.first_waits_for_all and rule.close in ("fixed", "deadline")
        everybody = range(self.m)
        arrivals, failures, copies = [], [], []
        will_send = self.dispatch(self.chosen(everybody))
        while not self.jobs and (rule.close != "fixed" or first):
            self.step(capacities, math.inf)
            self.instant()
            copies += self.ended_copies
            will_send += self.dispatch(self.chosen(everybody))
        opened, flying = self.now, len(self.jobs)
        awaited = {job.client: job.index for job in self.jobs.values()}
        all_of_them = first or rule.close == "all" or (rule.close == "release" and number <= 2)
        limit = -math.inf
        if rule.close == "fixed" and not all_of_them:
            limit = start + rule.dt_s
        elif rule.close == "release" and not all_of_them:
            limit = opened + max(rule.release_min_s, will_send / capacities[0] + self.number("0.1"))

        while True:
            self.instant()
            here = self.take()
            arrivals += here
            failures += self.failed
            copies += self.ended_copies
            for job in (*here, *self.failed):
                if awaited.get(job.client) == job.index:
                    del awaited[job.client]
            nobody = not awaited
            who = {job.client for job in arrivals}
            if all_of_them:
                closed = nobody or (rule.cohort and len(who) >= flying)
            elif rule.close == "fixed":
                closed = self.now >= limit
            elif rule.close == "release":
                closed = self.now >= limit and (nobody or len(who) >= min(2, flying))
            elif rule.close == "deadline":
                able = len(arrivals) + len(awaited)  # who failed does not count any more
                if limit == -math.inf and len(arrivals) >= math.ceil(rule.deadline_share * able - 1e-9):
                    limit = opened + rule.deadline_factor * (self.now - opened)
                closed = nobody or (limit > -math.inf and self.now >= limit)
            else:
                enough = len(arrivals) >= (rule.k if rule.close == "k_arrivals" else 1)
                closed = enough or (nobody and rule.dispatch == "window_end")
            if closed:
                break
            if rule.dispatch == "on_arrival":
                again = self.chosen(everybody)
                if again:
                    self.dispatch(again)
                    continue
            if self.landed():
                continue
            self.step(capacities, limit)
        if rule.close == "deadline":
            self.failed = []
            for i in sorted(awaited):
                self.fail(self.jobs[i], "late")
            failures += self.failed
            self.down = [stream for stream in self.down if stream.open() or stream in self.shared.values()]
        self.n = number
        self.shared = {name: stream for name, stream in self.shared.items() if stream.open()}
        after = self.bytes_down, self.bytes_client_down, self.bytes_up
        return (self.now, arrivals, failures, copies, *(b - a for a, b in zip(counters, after, strict=True)))
