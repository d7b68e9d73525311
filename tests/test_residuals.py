import torch
from scipy.ndimage import minimum_filter, uniform_filter

from skmimood.maps.residuals import filter_maps, residual_maps, upsample

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = torch.rand(3, 16, 16, generator=GENERATOR)
HEALED = torch.rand(3, 4, 16, 16, generator=GENERATOR)


def test_the_mean_combination_is_the_mean_residual():
    maps, healed = residual_maps(REFERENCE, HEALED, "absolute", "mean", 0.0)
    torch.testing.assert_close(maps, (REFERENCE[:, None] - HEALED).abs().mean(1))
    torch.testing.assert_close(healed, HEALED.mean(1))


def test_similarity_without_sharpness_is_the_mean():
    torch.testing.assert_close(
        residual_maps(REFERENCE, HEALED, "absolute", "similarity", 0.0)[0],
        residual_maps(REFERENCE, HEALED, "absolute", "mean", 0.0)[0],
    )


def test_a_large_sharpness_takes_the_nearest_restoration():
    near = HEALED.clone()
    near[:, 2] = REFERENCE + 0.01
    maps, healed = residual_maps(REFERENCE, near, "absolute", "similarity", 1000.0)
    torch.testing.assert_close(maps, torch.full_like(REFERENCE, 0.01), atol=1e-5, rtol=0)
    torch.testing.assert_close(healed, near[:, 2])


def test_similarity_weights_do_not_depend_on_the_intensity_scale():
    maps = residual_maps(REFERENCE, HEALED, "absolute", "similarity", 3.0)[0]
    torch.testing.assert_close(
        residual_maps(REFERENCE / 100, HEALED / 100, "absolute", "similarity", 3.0)[0], maps / 100
    )


def test_min_and_median_act_on_each_pixel():
    ordered = (REFERENCE[:, None] - HEALED).abs().sort(1).values
    torch.testing.assert_close(residual_maps(REFERENCE, HEALED, "absolute", "min", 3.0)[0], ordered[:, 0])
    median = (ordered[:, 1] + ordered[:, 2]) / 2
    torch.testing.assert_close(residual_maps(REFERENCE, HEALED, "absolute", "median", 3.0)[0], median)


def test_equal_images_have_no_residual():
    maps, _ = residual_maps(REFERENCE, REFERENCE[:, None].repeat(1, 3, 1, 1), "absolute", "similarity", 3.0)
    assert maps.max() == 0


def test_filters_are_a_minimum_then_a_mean():
    expected = uniform_filter(minimum_filter(REFERENCE[0].numpy(), 3), 7)
    filtered = filter_maps(REFERENCE, 3, 7)[0].numpy()
    assert abs(filtered - expected)[4:-4, 4:-4].max() < 1e-6


def test_filters_of_one_pixel_change_nothing():
    torch.testing.assert_close(filter_maps(REFERENCE, 1, 1), REFERENCE)


def test_a_constant_map_keeps_its_value_up_to_the_border():
    torch.testing.assert_close(filter_maps(torch.full((1, 9, 9), 0.5), 3, 7), torch.full((1, 9, 9), 0.5))


def test_a_thin_line_is_removed_and_a_blob_kept():
    maps = torch.zeros(1, 20, 20)
    maps[0, 3] = 1.0
    maps[0, 10:16, 10:16] = 1.0
    filtered = filter_maps(maps, 3, 3)
    assert filtered[0, :6].max() == 0
    assert filtered[0, 12, 12] > 0.5


def test_the_positive_residual_ignores_what_is_darker_than_its_restoration():
    darker = torch.where(REFERENCE[:, None] < HEALED, HEALED, REFERENCE[:, None])
    assert residual_maps(REFERENCE, darker, "positive", "mean", 0.0)[0].max() == 0
    brighter = REFERENCE[:, None] - 0.1
    torch.testing.assert_close(
        residual_maps(REFERENCE, brighter, "positive", "mean", 0.0)[0], torch.full_like(REFERENCE, 0.1)
    )


def test_upsampling_puts_a_token_over_its_own_pixels():
    values = torch.zeros(1, 4, 4)
    values[0, 1, 2] = 1.0
    pixels = upsample(values, 8, (29, 32))
    assert pixels.shape == (1, 29, 32)
    assert pixels[0, 8:16, 16:24].mean() > 0.5
    assert pixels[0, 24:].max() == 0
    assert int(pixels[0, 12].argmax()) in range(18, 22)
