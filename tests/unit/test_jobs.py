"""The job machine, event by event: what happened in, what to do out."""

from __future__ import annotations

import random

import pytest

from coordinator.jobs import (
    FINISH_S,
    PREPARE_S,
    RELEASE_S,
    Abort,
    Advance,
    Arm,
    Cancelled,
    Delivered,
    Enter,
    Event,
    Failed,
    Finished,
    Instruction,
    Job,
    JobState,
    Keep,
    Lost,
    Machine,
    Overdue,
    Phase,
    Prepare,
    Prepared,
    Progressed,
    Promise,
    Record,
    Released,
    Restarted,
    Run,
    Start,
    State,
    Stopped,
    Submitted,
)

PARTIES = ("helper", "a", "b")
EVALUATORS = ("a", "b")
DIGEST = bytes(range(32))
WEIGHTS, ACCURACY = Promise("weights", "analyst"), Promise("accuracy", "a")


def job(name: str) -> Job:
    return Job(Run(name), DIGEST, frozenset({WEIGHTS, ACCURACY}))


R = Run("one")


def machine(*events: Event, queue: tuple[Job, ...] = ()) -> Machine:
    made = Machine(PARTIES, EVALUATORS, queue)
    for event in events:
        made.handle(event)
    return made


def prepared(run: Run = R) -> list[Event]:
    return [Submitted(job(run.job)), *(Prepared(run, party, DIGEST) for party in PARTIES)]


def delivered(run: Run = R) -> list[Event]:
    return [Delivered(run, party, promise) for party in EVALUATORS for promise in (WEIGHTS, ACCURACY)]


def aborts(cause: str, run: Run = R) -> list[Instruction]:
    return [Abort(run, party, cause) for party in PARTIES]


def ends_with(instructions: list[Instruction], cause: str, state: JobState = JobState.ABORTED) -> None:
    """The job ends for `cause`, every party is told the same, and a deadline is set for their letting go."""
    enter, record, *rest, arm = instructions
    assert enter == Enter(R, state, cause)
    assert isinstance(record, Record) and record.text.endswith(cause)
    assert rest == aborts(cause)
    assert isinstance(arm, Arm) and arm.after_s == RELEASE_S


# ---- the straight way -----------------------------------------------------------------------------------------------
def test_a_job_on_a_free_cluster_is_prepared_at_once() -> None:
    assert machine().handle(Submitted(job("one"))) == [
        Record("one", "queued"),
        Enter(R, JobState.PREPARING),
        Prepare(R, "helper"),
        Prepare(R, "a"),
        Prepare(R, "b"),
        Arm(R, 0, PREPARE_S),
    ]


def test_it_starts_when_the_last_node_is_prepared() -> None:
    m = machine(Submitted(job("one")))
    assert m.handle(Prepared(R, "b", DIGEST)) == []
    assert m.handle(Prepared(R, "helper", DIGEST)) == []
    assert m.handle(Prepared(R, "a", DIGEST)) == [
        Enter(R, JobState.RUNNING),
        Record("one", "every node runs program 000102030405"),
        Start(R, "helper"),
        Start(R, "a"),
        Start(R, "b"),
    ]


def test_it_is_done_when_every_node_has_delivered_and_finished() -> None:
    m = machine(*prepared())
    assert m.handle(Finished(R, "helper")) == []  # a helper runs ahead
    for event in delivered():
        assert m.handle(event) == []
    [arm] = m.handle(Finished(R, "a"))
    assert isinstance(arm, Arm) and arm.after_s == FINISH_S
    assert m.handle(Finished(R, "b")) == [Enter(R, JobState.DONE), Record("one", "done")]
    assert m.state == State()


def test_the_next_job_starts_when_one_is_done() -> None:
    m = machine(*prepared())
    assert m.handle(Submitted(job("two"))) == [Record("two", "queued")]
    for event in delivered():
        m.handle(event)
    m.handle(Finished(R, "a"))
    m.handle(Finished(R, "helper"))
    assert m.handle(Finished(R, "b")) == [
        Enter(R, JobState.DONE),
        Record("one", "done"),
        Enter(Run("two"), JobState.PREPARING),
        *(Prepare(Run("two"), party) for party in PARTIES),
        Arm(Run("two"), 0, PREPARE_S),
    ]


def test_progress_is_that_of_the_slowest_evaluator() -> None:
    m = machine(*prepared())
    assert m.handle(Progressed(R, "helper", 9, 10)) == []
    assert m.handle(Progressed(R, "a", 2, 10)) == []
    assert m.handle(Progressed(R, "b", 1, 10)) == [Advance(R, 1, 10)]
    assert m.handle(Progressed(R, "b", 2, 10)) == [Advance(R, 2, 10)]
    assert m.handle(Progressed(R, "b", 3, 10)) == []


# ---- failures -------------------------------------------------------------------------------------------------------
def test_a_failure_ends_the_job_for_all_with_the_same_cause() -> None:
    m = machine(*prepared())
    ends_with(
        m.handle(Failed(R, "b", "the connection ended", "a", "mul (train.py:12)")),
        "b: the connection ended, at mul (train.py:12), because of a",
    )


def test_a_cause_does_not_say_twice_who_and_where() -> None:
    m = machine(*prepared())
    cause = "waited 60 s for a at mul (train.py:12)"
    ends_with(m.handle(Failed(R, "b", cause, "a", "mul (train.py:12)")), f"b: {cause}")


def test_a_cause_that_another_node_found_is_passed_on_as_it_is() -> None:
    m = machine(*prepared())
    ends_with(m.handle(Failed(R, "b", "helper: the link to a broke", "a")), "helper: the link to a broke")


def test_a_refusal_to_prepare_ends_the_job() -> None:
    m = machine(Submitted(job("one")), Prepared(R, "helper", DIGEST))
    ends_with(m.handle(Failed(R, "a", "output x would go to b")), "a: output x would go to b")


def test_a_node_that_prepared_another_program_ends_the_job() -> None:
    m = machine(Submitted(job("one")), Prepared(R, "helper", DIGEST))
    ends_with(
        m.handle(Prepared(R, "a", bytes(32))),
        "a prepared another program (000000000000) than was submitted (000102030405)",
    )


@pytest.mark.parametrize("when", [1, 2, 3, 4, 6])
def test_a_lost_node_ends_the_job_in_every_phase(when: int) -> None:
    m = machine(*[*prepared(), *delivered()][:when])
    ends_with(m.handle(Lost(R, "b", "cannot be reached")), "b cannot be reached")


def test_a_node_that_finishes_without_its_results_ends_the_job() -> None:
    m = machine(*prepared(), *delivered()[:-2], Delivered(R, "b", WEIGHTS))
    ends_with(m.handle(Finished(R, "b")), "b finished without its part of accuracy for a")


def test_a_result_of_which_only_some_pieces_came_is_missing() -> None:
    m = machine(*prepared(), Delivered(R, "a", WEIGHTS, complete=False), Delivered(R, "a", ACCURACY))
    ends_with(m.handle(Finished(R, "a")), "a finished without its part of weights for analyst")


@pytest.mark.parametrize(
    "wrong",
    [
        Delivered(R, "a", Promise("weights", "b")),
        Delivered(R, "a", Promise("data", "analyst")),
        Delivered(R, "helper", WEIGHTS),
    ],
)
def test_a_result_that_nobody_asked_for_ends_the_job(wrong: Delivered) -> None:
    m = machine(*prepared())
    output, recipient = wrong.promise
    ends_with(m.handle(wrong), f"{wrong.party} delivered {output} for {recipient}, which the job does not promise")


def test_only_the_first_failure_is_the_cause() -> None:
    m = machine(*prepared(), Failed(R, "b", "first"))
    assert m.handle(Failed(R, "a", "second")) == []
    assert m.handle(Lost(R, "a", "is gone")) == []
    assert m.handle(Finished(R, "helper")) == []


def test_the_next_job_waits_until_every_node_has_let_go() -> None:
    m = machine(*prepared(), Submitted(job("two")), Failed(R, "b", "x"), Released(R, "a"), Released(R, "b"))
    assert m.handle(Released(R, "b")) == []
    assert m.handle(Released(R, "helper"))[0] == Enter(Run("two"), JobState.PREPARING)


# ---- deadlines ------------------------------------------------------------------------------------------------------
def test_a_node_that_does_not_prepare_is_named() -> None:
    m = machine(Submitted(job("one")), Prepared(R, "helper", DIGEST))
    assert m.handle(Overdue(R, 0)) == [Arm(R, 1, PREPARE_S)]  # somebody answered since: once more
    m.handle(Prepared(R, "a", DIGEST))
    assert m.handle(Overdue(R, 1)) == [Arm(R, 2, PREPARE_S)]
    ends_with(m.handle(Overdue(R, 2)), f"b has not answered for {PREPARE_S:.0f} s, asked to prepare")


def test_all_nodes_that_do_not_prepare_are_named() -> None:
    m = machine(Submitted(job("one")))
    ends_with(m.handle(Overdue(R, 0)), f"helper, a and b have not answered for {PREPARE_S:.0f} s, asked to prepare")


def test_a_job_may_run_as_long_as_it_likes() -> None:
    m = machine(*prepared())
    assert m.handle(Overdue(R, 0)) == []
    assert m.handle(Overdue(R, 2)) == []


def test_an_evaluator_that_does_not_finish_with_the_others_is_named() -> None:
    m = machine(*prepared(), *delivered()[:2], Finished(R, "helper"))
    [arm] = m.handle(Finished(R, "a"))
    assert isinstance(arm, Arm)
    m.handle(Delivered(R, "b", WEIGHTS))
    [arm] = m.handle(Overdue(R, arm.mark))
    assert isinstance(arm, Arm)
    ends_with(m.handle(Overdue(R, arm.mark)), f"b has not answered for {FINISH_S:.0f} s, asked to finish")


def test_a_node_that_does_not_let_go_does_not_block_the_queue() -> None:
    m = machine(*prepared(), Submitted(job("two")))
    *_, arm = m.handle(Failed(R, "a", "x"))
    assert isinstance(arm, Arm)
    m.handle(Released(R, "a"))
    m.handle(Released(R, "helper"))
    [arm] = m.handle(Overdue(R, arm.mark))
    assert isinstance(arm, Arm)
    record, enter, *_ = m.handle(Overdue(R, arm.mark))
    assert record == Record("one", f"b has not answered for {RELEASE_S:.0f} s, asked to let go: going on without")
    assert enter == Enter(Run("two"), JobState.PREPARING)


# ---- cancelling, stopping, restarting -------------------------------------------------------------------------------
def test_a_queued_job_is_cancelled_without_a_word_to_the_nodes() -> None:
    m = machine(*prepared(), Submitted(job("two")), Submitted(job("three")))
    assert m.handle(Cancelled("two", "analyst")) == [
        Enter(Run("two"), JobState.CANCELLED, "cancelled by analyst"),
        Record("two", "cancelled by analyst"),
    ]
    assert [waiting.run.job for waiting in m.state.queue] == ["three"]


@pytest.mark.parametrize("events", [1, 2, 4, 5])
def test_a_running_job_is_cancelled_at_every_node(events: int) -> None:
    m = machine(*[*prepared(), *delivered()][:events])
    ends_with(m.handle(Cancelled("one", "a")), "cancelled by a", JobState.CANCELLED)


def test_cancelling_what_has_ended_does_nothing() -> None:
    m = machine(*prepared(), Failed(R, "a", "x"))
    assert m.handle(Cancelled("one", "a")) == []
    assert m.handle(Cancelled("none", "a")) == []


def test_shutting_down_aborts_the_running_job_and_keeps_the_queue() -> None:
    m = machine(*prepared(), Submitted(job("two")))
    ends_with(m.handle(Stopped()), "the coordinator was shut down")
    for party in PARTIES:
        assert m.handle(Released(R, party)) == []
    assert m.state == State((job("two"),), stopping=True)


def test_shutting_down_an_idle_coordinator_does_nothing() -> None:
    assert machine().handle(Stopped()) == []


def test_a_restart_aborts_what_ran_and_goes_on_with_the_queue() -> None:
    m = machine(queue=(job("two"),))
    ends_with(m.handle(Restarted(R)), "the coordinator was restarted while the job ran")
    for party in ("a", "b"):
        assert m.handle(Released(R, party)) == []
    assert m.handle(Released(R, "helper"))[0] == Enter(Run("two"), JobState.PREPARING)


def test_a_restart_of_an_idle_coordinator_starts_the_queue() -> None:
    assert machine(queue=(job("two"),)).handle(Restarted())[0] == Enter(Run("two"), JobState.PREPARING)
    assert machine().handle(Restarted()) == []


# ---- what is late or out of order -----------------------------------------------------------------------------------
@pytest.mark.parametrize("run", [Run("other"), Run("one", 2)])
def test_answers_to_another_run_are_ignored(run: Run) -> None:
    m = machine(*prepared())
    for event in (
        Prepared(run, "a", DIGEST),
        Progressed(run, "a", 1, 2),
        Delivered(run, "a", WEIGHTS),
        Finished(run, "a"),
        Failed(run, "a", "x"),
        Lost(run, "a", "x"),
        Released(run, "a"),
        Overdue(run, 0),
    ):
        assert m.handle(event) == []
    assert m.state.active is not None and m.state.active.phase is Phase.RUNNING


def test_a_node_that_finishes_before_it_was_started_ends_the_job() -> None:
    m = machine(Submitted(job("one")))
    ends_with(m.handle(Finished(R, "a")), "a finished before it was started")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_job_ends_once_and_in_order(seed: int) -> None:
    """Random events, late and lost ones included.  A failure would be: a job that never ends, ends twice, starts while
    another holds the cluster, or is DONE without all its results."""
    chance = random.Random(seed)
    m, names = machine(), [f"job{i}" for i in range(5)]
    waiting, ended, given = list(names), [], set()
    holder: str | None = None
    timers: list[Arm] = []

    def carry_out(instructions: list[Instruction]) -> None:
        nonlocal holder
        for instruction in instructions:
            if isinstance(instruction, Arm):
                timers.append(instruction)
            if isinstance(instruction, Enter):
                name = instruction.run.job
                assert name not in ended
                if instruction.state is JobState.PREPARING:
                    assert holder is None or holder in ended
                    holder = name
                if instruction.state.ended:
                    ended.append(name)
                if instruction.state is JobState.DONE:
                    assert {(name, p, q) for p in EVALUATORS for q in (WEIGHTS, ACCURACY)} <= given

    for _ in range(2000):
        run = Run(chance.choice([holder or "none", *names]))
        party = chance.choice(PARTIES)
        promise = chance.choice((WEIGHTS, ACCURACY))
        if waiting and chance.random() < 0.05:
            carry_out(m.handle(Submitted(job(waiting.pop(0)))))
        events: list[Event] = [Prepared(run, party, DIGEST)] * 6
        events += [Delivered(run, chance.choice(EVALUATORS), promise)] * 6
        events += [Finished(run, party), Released(run, party), Failed(run, party, "x"), Cancelled(run.job, "a")]
        events += [Overdue(t.run, t.mark) for t in timers[-2:]]
        event = chance.choice(events)
        if isinstance(event, Delivered):
            given.add((event.run.job, event.party, event.promise))
        carry_out(m.handle(event))
    for _ in range(100):  # nobody answers any more: deadlines alone must empty the queue
        if waiting:
            carry_out(m.handle(Submitted(job(waiting.pop(0)))))
        active = m.state.active
        if active is not None and active.phase is Phase.RUNNING and active.armed < 0:
            carry_out(m.handle(Lost(active.job.run, "a", "is gone")))  # a running job ends when a node says so
        if timers:
            carry_out(m.handle(Overdue(timers[-1].run, timers[-1].mark)))
    assert sorted(ended) == names and m.state == State()


# ---- kept values and guests -----------------------------------------------------------------------------------------
def test_nodes_are_told_that_what_they_keep_counts_once_all_are_done() -> None:
    keeping = Job(R, DIGEST, frozenset(), keeps=True)
    m = machine(Submitted(keeping), *(Prepared(R, party, DIGEST) for party in PARTIES))
    m.handle(Finished(R, "helper"))
    m.handle(Finished(R, "a"))
    assert m.handle(Finished(R, "b")) == [
        Enter(R, JobState.DONE),
        Record("one", "done"),
        *(Keep(R, party) for party in PARTIES),
    ]


def test_nobody_keeps_anything_of_a_job_that_fails_anywhere() -> None:
    keeping = Job(R, DIGEST, frozenset(), keeps=True)
    m = machine(Submitted(keeping), *(Prepared(R, party, DIGEST) for party in PARTIES), Finished(R, "a"))
    ends_with(m.handle(Failed(R, "b", "the disk is full")), "b: the disk is full")


def test_a_guest_has_a_part_in_its_job_only() -> None:
    everybody = (*PARTIES, "guest")
    with_guest = job("one")._replace(guests=("guest",))
    m = machine(Submitted(with_guest))
    assert m.handle(Submitted(job("two"))) == [Record("two", "queued")]
    for party in PARTIES:
        assert m.handle(Prepared(R, party, DIGEST)) == []
    started = m.handle(Prepared(R, "guest", DIGEST))
    assert [i.party for i in started if isinstance(i, Start)] == list(everybody)
    for event in delivered():
        m.handle(event)
    for party in ("helper", "guest", "a"):
        m.handle(Finished(R, party))
    instructions = m.handle(Finished(R, "b"))
    assert [i.party for i in instructions if isinstance(i, Prepare)] == list(PARTIES)  # the next job, without it


def test_a_guest_that_goes_away_ends_the_job_for_all() -> None:
    m = machine(Submitted(job("one")._replace(guests=("guest",))))
    told = [i.party for i in m.handle(Lost(R, "guest", "is gone")) if isinstance(i, Abort)]
    assert told == [*PARTIES, "guest"]
    for party in told[:-1]:
        assert m.handle(Released(R, party)) == []
    assert m.state.active is not None
    m.handle(Released(R, "guest"))
    assert m.state.active is None


def test_an_interrupted_job_is_taken_from_its_guests_too() -> None:
    told = machine().handle(Restarted(R, ("guest",)))
    assert [i.party for i in told if isinstance(i, Abort)] == [*PARTIES, "guest"]
