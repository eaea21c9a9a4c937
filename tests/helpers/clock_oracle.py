"""A slow, obvious model of the clock: every stream, every client, every byte held, moved from event to event.

Shares nothing with `prfl_jax.clock` but the data classes and the random factors (which have tests
of their own). Whatever can change is looked at after every step; a byte count within EPS is reached.

With `exact`, network, costs and rule hold fractions, the factors are 1, and nothing is rounded: what happens at the
same moment by the mathematics does.
"""

from __future__ import annotations

import math
from fractions import Fraction

from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, SERVER_DOWN, SERVER_UP, LogNormals, draw_idle

EPS = 1e-4  # bytes
MB = 10**6


class Job:
    """One client's dispatch."""

    def __init__(self, client, index, version, now, costs, mask):
        self.client, self.index, self.version, self.dispatched = client, index, version, now
        self.phase = "mask"
        self.mask_need, self.mask_got = mask, 0
        self.need, self.got = int(costs.down_bytes[client]), 0
        self.up_need, self.up_got = int(costs.up_bytes[client]), 0
        self.compute = costs.compute_s[client]
        self.down_rate = self.up_rate = 0
        self.mask_stream = self.stream = None
        self.downloaded = self.computed = None


class Sent:
    """A download stream: how much of it each job needs."""

    def __init__(self, eps):
        self.sent, self.rate, self.needs, self.eps = 0, 0, [], eps  # needs: (job, bytes)

    def open(self):
        return [(job, need) for job, need in self.needs if need > self.sent + self.eps]


class Oracle:
    def __init__(self, network, rule, transport, seed, costs, exact=False):
        self.number = Fraction if exact else float
        self.eps, self.tie = (0, 0) if exact else (EPS, 1e-12)
        self.net, self.rule, self.transport, self.costs = network, rule, transport, costs
        self.m = len(network.client_up)
        self.draw = {
            purpose: LogNormals(seed, purpose, sigma)
            for purpose, sigma in (
                (CLIENT_DOWN, network.client_sigma),
                (CLIENT_UP, network.client_sigma),
                (SERVER_UP, network.server_sigma),
                (SERVER_DOWN, network.server_sigma),
            )
        }
        self.now, self.n = self.number(0), 0
        self.jobs, self.down, self.up, self.shared = {}, [], [], {}
        self.index = [0] * self.m
        self.has_mask = [False] * self.m
        self.seed, self.drawn = seed, 0
        self.ready = self.draw_cohort(rule.cohort) if rule.cohort else list(range(self.m))
        self.bytes_down = self.bytes_client_down = self.bytes_up = 0

    def factor(self, purpose, source, k):
        return self.number(self.draw[purpose].factor(source, k))

    def capacities(self, number):
        up = MB * self.net.server_up * self.factor(SERVER_UP, 0, number)
        return up, MB * self.net.server_down * self.factor(SERVER_DOWN, 0, number)

    def draw_cohort(self, count):
        if not count:
            return []
        self.drawn += 1
        return draw_idle(self.seed, self.drawn, count, self.m, self.jobs)

    def set_costs(self, costs):
        self.costs, self.has_mask = costs, [False] * self.m

    # --- dispatch ---

    def dispatch(self, clients):
        jobs = []
        for i in sorted(clients):
            mask = 0 if self.has_mask[i] else int(self.costs.mask_bytes[i])
            self.has_mask[i] = True
            job = Job(i, self.index[i], self.n, self.now, self.costs, mask)
            job.down_rate = MB * self.net.client_down[i] * self.factor(CLIENT_DOWN, i, job.index)
            job.up_rate = MB * self.net.client_up[i] * self.factor(CLIENT_UP, i, job.index)
            self.index[i] += 1
            self.jobs[i] = job
            jobs.append(job)
        will_send = 0
        for job in jobs:
            if job.mask_need:
                job.mask_stream = Sent(self.eps)
                job.mask_stream.needs.append((job, job.mask_need))
                self.down.append(job.mask_stream)
                will_send += job.mask_need
        order = jobs
        if self.transport == "distinct":
            order = sorted(jobs, key=lambda job: (job.need, int(self.costs.group[job.client]), job.client))
        for job in order:
            if not job.need:  # begins no stream
                job.stream = Sent(self.eps)
                continue
            name = {"unicast": (job.client, job.index), "distinct": int(self.costs.group[job.client])}.get(
                self.transport, "all"
            )
            stream = self.shared.get((self.n, name))
            if stream is None:
                stream = self.shared[self.n, name] = Sent(self.eps)
                self.down.append(stream)
            before = max([need for _, need in stream.needs], default=0)
            stream.needs.append((job, job.need))
            job.stream = stream
            will_send += max(0, job.need - before)
        return will_send

    # --- what happens between events ---

    def allocate(self, up_capacity, down_capacity):
        left = up_capacity
        for stream in self.down:
            own = max([job.down_rate for job, _ in stream.open()], default=0)
            stream.rate = min(own, left if self.net.contention else up_capacity)
            left -= stream.rate
        left = down_capacity
        self.up_rates = {}
        for job in self.up:
            self.up_rates[job] = min(job.up_rate, left if self.net.contention else down_capacity)
            left -= self.up_rates[job]

    @staticmethod
    def taking(job):
        """(stream, bytes held, bytes needed) of the part that a job takes now."""
        if job.phase == "mask":
            return job.mask_stream, job.mask_got, job.mask_need
        return job.stream, job.got, job.need

    def taking_rate(self, job):
        stream, got, need = self.taking(job)
        if got < stream.sent - self.eps:
            return job.down_rate
        return min(job.down_rate, stream.rate if need > stream.sent + self.eps else 0)

    def next_step(self, limit):
        steps = [limit - self.now] if limit > self.now else []
        for stream in self.down:
            if stream.rate > 0:
                steps += [(need - stream.sent) / stream.rate for _, need in stream.open()]
        for job in self.jobs.values():
            if job.phase in ("mask", "values"):
                stream, got, need = self.taking(job)
                rate = self.taking_rate(job)
                if rate > 0:
                    steps.append((need - got) / rate)
                if got < stream.sent - self.eps and rate > stream.rate:
                    steps.append((stream.sent - got) / (rate - stream.rate))
            elif job.phase == "compute":
                steps.append(job.computed - self.now)
            elif job.phase == "upload" and self.up_rates[job] > 0:
                steps.append((job.up_need - job.up_got) / self.up_rates[job])
        return max(0, min(steps, default=math.inf))

    def advance(self, step):
        rates = {job: self.taking_rate(job) for job in self.jobs.values() if job.phase in ("mask", "values")}
        for job, rate in rates.items():
            if job.phase == "mask":
                job.mask_got += rate * step
            else:
                job.got += rate * step
            self.bytes_client_down += rate * step
        for stream in self.down:
            stream.sent += stream.rate * step
            self.bytes_down += stream.rate * step
        for job in self.up:
            job.up_got += self.up_rates[job] * step
            self.bytes_up += self.up_rates[job] * step
        self.now += step

    def instant(self):
        """Everything that is finished by now moves on."""
        again = True
        while again:
            again = False
            begun = []
            for job in self.jobs.values():
                if job.phase == "mask" and job.mask_got >= job.mask_need - self.eps:
                    job.phase, again = "values", True
                if job.phase == "values" and job.got >= job.need - self.eps:
                    job.phase, again = "compute", True
                    job.downloaded, job.computed = self.now, self.now + job.compute
                if job.phase == "compute" and job.computed <= self.now + self.tie * max(1, self.now):
                    job.phase, again = "upload", True
                    begun.append(job)
            self.up += sorted(begun, key=lambda job: job.client)
            for job in list(self.up):
                if job.up_got >= job.up_need - self.eps:
                    self.up.remove(job)
                    job.phase, job.arrived, again = "landed", self.now, True
        self.down = [stream for stream in self.down if stream.open() or stream in self.shared.values()]

    def landed(self):
        return sorted((job for job in self.jobs.values() if job.phase == "landed"), key=lambda job: job.client)

    def take(self):
        """Arrivals by client id; where a window closes with a number of them, the first alone."""
        here = self.landed()[: 1 if self.rule.close in ("k_arrivals", "each_arrival") else None]
        for job in here:
            del self.jobs[job.client]
        return here

    # --- a window ---

    def next_window(self):
        """(end, arrived jobs in order, bytes sent, bytes received by clients, bytes received by the server)."""
        counters = self.bytes_down, self.bytes_client_down, self.bytes_up
        start, number, rule = self.now, self.n + 1, self.rule
        up_capacity, down_capacity = self.capacities(number)
        will_send = self.dispatch(self.ready)
        flying = len(self.jobs)

        def closed(arrivals):
            """May the window close now, given who arrived?"""
            who = {job.client for job in arrivals}
            if rule.close == "fixed" and not (number == 1 and rule.first_waits_for_all):
                return self.now >= start + rule.dt_s
            if rule.close in ("fixed", "all") or (rule.close == "release" and number <= 2):
                return len(who) == flying
            if rule.close == "release":
                least = start + max(rule.release_min_s, will_send / up_capacity + self.number("0.1"))
                return self.now >= least and len(who) >= min(2, flying)
            return len(arrivals) >= (rule.k if rule.close == "k_arrivals" else 1)

        limit = -math.inf
        if rule.close == "fixed" and not (number == 1 and rule.first_waits_for_all):
            limit = start + rule.dt_s
        elif rule.close == "release" and number > 2:
            limit = start + max(rule.release_min_s, will_send / up_capacity + self.number("0.1"))

        arrivals = []
        while True:
            self.instant()
            here = self.take()
            arrivals += here
            if closed(arrivals):
                break
            if here and rule.dispatch == "on_arrival":
                self.dispatch(self.draw_cohort(len(here)) if rule.cohort else [job.client for job in here])
                continue
            if self.landed():
                continue
            self.allocate(up_capacity, down_capacity)
            step = self.next_step(limit)
            assert step < math.inf
            before = self.now
            self.advance(step)
            if abs(self.now - limit) < self.tie * max(1, abs(limit)) or before + step == limit:
                self.now = limit
        last = self.now
        if rule.cohort:
            self.ready = self.draw_cohort(rule.cohort - len(self.jobs))
        elif rule.dispatch == "on_arrival":
            self.ready = [job.client for job in arrivals if job.arrived == last and job.client not in self.jobs]
        else:
            self.ready = [job.client for job in arrivals]
        self.n = number
        self.shared = {name: stream for name, stream in self.shared.items() if stream.open()}
        after = self.bytes_down, self.bytes_client_down, self.bytes_up
        return (last, arrivals, *(b - a for a, b in zip(counters, after, strict=True)))
