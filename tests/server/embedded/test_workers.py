import threading

from tuner.server.embedded.workers import Workers


def test_refuses_beyond_the_limit_and_takes_work_from_inside_an_answer():
    workers = Workers(2)
    gate, answered, again = threading.Event(), threading.Semaphore(0), []

    def work():
        assert gate.wait(30)
        return answer

    def answer():
        # The thread counts as free once its answer goes out.
        again.append(workers.submit(lambda: answered.release))
        answered.release()

    assert workers.submit(work)
    assert workers.submit(work)
    assert not workers.submit(work)
    gate.set()
    for _ in range(4):
        assert answered.acquire(timeout=30)
    assert again == [True, True]


def test_no_threads_no_calls():
    assert not Workers(0).submit(lambda: lambda: None)
