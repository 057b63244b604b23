"""DeepSpeed's Muon optimizer is imported without torch's compiler, however it is decorated."""

from types import SimpleNamespace

import pytest

from jobs.engine import deepspeed_engine


def written():
    """A function of the optimizer."""


@pytest.mark.parametrize(
    ("decorate", "made"),
    [
        (lambda compiler: compiler.compile()(written), [written]),
        (lambda compiler: compiler.compile(dynamic=True)(written), [written]),
        (lambda compiler: compiler.compile(written), []),  # `@compiler.compile`: left to DeepSpeed
    ],
)
def test_functions_stay_as_they_are_written_or_are_left_alone(monkeypatch, decorate, made):
    theirs = object()
    compiler = SimpleNamespace(compile=theirs, dummy_decorator=lambda function: function)
    deepspeed = SimpleNamespace(ops=SimpleNamespace(__compatible_ops__={}))
    found = []

    def import_module(name):
        if name == "deepspeed.runtime.compiler":
            return compiler
        if name.endswith("original_muon"):
            found.append(decorate(compiler))
        return deepspeed

    monkeypatch.setattr(deepspeed_engine, "importlib", SimpleNamespace(import_module=import_module))
    assert deepspeed_engine._deepspeed() is deepspeed
    assert found == made
    assert compiler.compile is theirs
