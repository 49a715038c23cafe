"""From an error to a finding, and the worst light of many."""

from tuner.doctor.finding import of_error, worst
from tuner.errors import CandidateError, HostError


def test_what_is_not_known_is_left_as_it_is():
    found = of_error("x", HostError("the moon is full", hint="wait"))
    assert (found.check, found.what, found.remedy) == ("x", "the moon is full", "wait")


def test_a_servers_log_tells_what_its_error_does_not():
    error = CandidateError("it died", log_tail="... Could not find base path /m ...")
    found = of_error("server", error)
    assert (found.check, found.light) == ("model-path", "red")
    assert found.what.endswith(": it died")
    assert "/m" in found.detail


def test_the_worst_light_of_many():
    assert worst([]) == "green"
    red = of_error("x", HostError("y"))
    assert worst([red]) == "red"
