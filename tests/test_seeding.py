"""Random streams: one for each seed and purpose, and no global state."""

import pytest
import torch

from hesspipe.seeding import derive_seed, generator, probe

PURPOSES = ["initial parameters", "gaussian clusters", "batches of epoch 0", "batches of epoch 1"]


def test_derive_seed_gives_every_seed_and_purpose_its_own():
    seeds = {derive_seed(seed, purpose) for seed in range(100) for purpose in PURPOSES}
    assert len(seeds) == 100 * len(PURPOSES)


def test_derive_seed_does_not_mix_up_seed_and_purpose():
    assert derive_seed(1, "1/a") != derive_seed(11, "/a")
    assert derive_seed(1, "2") != derive_seed(12, "")


@pytest.mark.parametrize("num_bits", [1, 32, 63])
def test_derive_seed_fills_its_bits_and_no_more(num_bits):
    seeds = [derive_seed(seed, "bits", num_bits) for seed in range(200)]
    assert min(seeds) >= 0
    assert max(seeds).bit_length() == num_bits


def test_derive_seed_flips_every_bit_about_half_the_time():
    seeds = [derive_seed(seed, "bits") for seed in range(400)]
    for bit in range(63):
        ones = sum(seed >> bit & 1 for seed in seeds)
        assert abs(ones - 200) < 4.5 * 10  # the standard deviation of 400 coins is 10


@pytest.mark.parametrize("seed", [-1, -(2**40)])
def test_derive_seed_refuses_negative_seeds(seed):
    with pytest.raises(ValueError, match=f"seed must be at least 0, got {seed}"):
        derive_seed(seed, "anything")


def numbers(seed: int, purpose: str) -> torch.Tensor:
    return torch.randn(1000, generator=generator(seed, purpose), dtype=torch.float64)


def test_generator_is_reproducible():
    assert torch.equal(numbers(7, "initial parameters"), numbers(7, "initial parameters"))


@pytest.mark.parametrize(
    ("seed", "purpose"), [(8, "initial parameters"), (7, "gaussian clusters"), (0, "a")]
)
def test_generator_gives_another_stream_to_another_seed_or_purpose(seed, purpose):
    pair = torch.stack([numbers(7, "initial parameters"), numbers(seed, purpose)])
    assert torch.corrcoef(pair)[0, 1].abs() < 4 / 1000**0.5


def test_generator_does_not_touch_the_global_state_of_torch():
    before = torch.random.get_rng_state()
    numbers(0, "initial parameters")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_generator_does_not_read_the_global_state_of_torch():
    first = numbers(3, "initial parameters")
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = numbers(3, "initial parameters")
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probe_is_the_same_for_every_call_and_dtype(dtype):
    first, second = probe(torch.zeros(3, 5)), probe(torch.ones(3, 5, dtype=dtype))
    assert second.dtype == dtype
    assert torch.equal(first.to(dtype), second.to(torch.float32).to(dtype))


def test_probe_does_not_touch_the_global_state_of_torch():
    before = torch.random.get_rng_state()
    probe(torch.zeros(3))
    assert torch.equal(torch.random.get_rng_state(), before)
