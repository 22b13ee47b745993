"""Which weights are kept, when a training stops, and how its learning rate goes."""

import pytest
import torch

from catmorph.recipe import TrainingSection
from catmorph.training.course import optimiser_for, schedule_for
from catmorph.training.history import History, accuracy


def section(**options):
    return TrainingSection(**({"output": "net.safetensors", "epochs": 99, "patience": 2} | options))


def run(settings, losses=(), accuracies=()):
    """Return the history when its training has ended."""
    history = History()
    for number, value in enumerate(losses or accuracies):
        row = {"validation_loss": value if losses else float(number), "validation_accuracy": value}
        history.add(row, settings)
        if history.ended(settings):
            break
    return history


def test_the_smallest_loss_is_kept_and_patience_counts_from_it():
    history = run(section(), losses=[3.0, 2.0, 2.0, 2.5, 1.0])
    assert (len(history.rows), history.best_epoch, history.best) == (4, 2, 2.0)


def test_the_largest_accuracy_is_kept_whatever_the_loss():
    history = run(section(monitor="accuracy"), accuracies=[0.5, 0.7, 0.6, 0.7])
    assert (len(history.rows), history.best_epoch, history.best) == (4, 2, 0.7)


def test_small_gains_are_kept_but_do_not_count_for_patience():
    # Keras' EarlyStopping(min_delta=0.001): gains add up until they are large enough.
    settings = section(monitor="accuracy", least_gain=0.001)
    history = run(settings, accuracies=[0.5, 0.5006, 0.5012, 0.5015, 0.5018, 0.6])
    assert (len(history.rows), history.best_epoch) == (5, 5)
    assert history.gained_epoch == 3


def rates(settings, values):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = optimiser_for(settings, [weight])
    schedule = schedule_for(settings, optimiser)
    found = []
    for value in values:
        found.append(optimiser.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        optimiser.step()
        schedule.step(value) if settings.schedule == "plateau" else schedule.step()
    return found


def test_the_rate_is_halved_down_to_its_least_value():
    settings = section(schedule="plateau", plateau_monitor="accuracy", plateau_factor=0.5, plateau_patience=1,
                       plateau_least=1e-13, learning_rate=3e-13)
    # Better by less than 1e-4 is not better; the rate falls after the second epoch without gain.
    assert rates(settings, [0.5, 0.50005, 0.5, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5]) == pytest.approx(
        [3e-13, 3e-13, 3e-13, 1.5e-13, 1.5e-13, 1.5e-13, 1e-13, 1e-13, 1e-13], rel=1e-6, abs=0)


def test_the_plateau_looks_at_what_is_monitored_unless_told():
    assert section(monitor="accuracy").plateau_watches == "accuracy"
    assert section(monitor="accuracy", plateau_monitor="loss").plateau_watches == "loss"


def test_gradient_descent_with_a_falling_rate():
    settings = section(schedule="exponential", optimiser="sgd", momentum=0.0, learning_rate=0.8, decay=0.9)
    assert rates(settings, [0, 0, 0]) == pytest.approx([0.8, 0.8 * 0.40657, 0.8 * 0.1653], rel=1e-4)


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, [1, 1, 1]), (0.5, [1, 1.5, 1.75])])
def test_momentum_takes_a_share_of_the_last_step_again(momentum, steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = optimiser_for(section(optimiser="sgd", momentum=momentum, learning_rate=1.0), [weight])
    for step in steps:
        before, weight.grad = weight.item(), torch.ones(1)
        optimiser.step()
        assert before - weight.item() == pytest.approx(step)


def test_accuracy_by_hand():
    predicted = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    fractions = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.8, 0.0], [0.3, 0.3, 0.4], [0.6, 0.0, 0.4]])
    assert accuracy(predicted, fractions).item() == pytest.approx(0.75)
    yes, human = torch.tensor([[0.9], [0.4], [0.5], [0.2]]), torch.tensor([[1.0], [0.6], [0.5], [0.0]])
    assert accuracy(yes, human).item() == pytest.approx(0.75)
