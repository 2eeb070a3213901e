"""Encoders from timm: levels, reach, sizes, tiles, pruning, weights from files, refusals."""

import os
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skipway import models, topology
from skipway.errors import CheckpointError, EnvironmentFault, SecurityError, TopologyError, UsageError
from skipway.nn import backbones
from skipway.nn.backbones import BackboneEncoder, backbone_encoder
from skipway.nn.operations import count_macs
from skipway.pretrained import load_pretrained
from skipway.topology import Node

LEVELS = {
    "vgg19": ((64, 128, 256, 512, 512, 512), True),
    "resnet34": ((0, 64, 64, 128, 256, 512), True),
    "resnet152": ((0, 64, 256, 512, 1024, 2048), True),
    "densenet201": ((0, 64, 256, 512, 1792, 1920), True),
    "efficientnet_b0": ((0, 16, 24, 40, 112, 320), False),
    "convnext_atto": ((0, 0, 40, 80, 160, 320), True),
    "swin_tiny_patch4_window7_224": ((0, 0, 96, 192, 384, 768), False),
}
SMALL = ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "mambaout_femto"]


def blank(name, *args, **options):
    with torch.device("meta"):
        return backbone_encoder(name, *args, **options)


@pytest.mark.parametrize("name", LEVELS)
def test_levels_are_named_by_stride_and_those_that_look_everywhere_say_so(name):
    widths, local = LEVELS[name]
    encoder = blank(name, 3)
    assert (encoder.widths, encoder.tile_exact) == (widths, local)
    assert encoder.strides == tuple((2**level,) * 2 for level in range(6))
    maps = encoder(torch.zeros(2, 3, 64, 96, device="meta"))
    assert [tuple(found.shape) for found in maps] == [
        (2, width, 64 // 2**level, 96 // 2**level) for level, width in enumerate(widths) if width
    ]


@pytest.mark.parametrize(
    ("name", "depth", "rows"),
    [("vgg19", 6, 448), ("resnet34", 5, 384), ("densenet121", 4, 416), ("convnext_atto", 4, 288)],
)
def test_no_map_looks_further_than_its_path_says_and_the_path_says_little_more(name, depth, rows):
    """A row of NaN in the input marks every output that depends on it."""
    encoder = backbone_encoder(name, 1, depth).eval().double()
    middle = rows // 2
    image = torch.rand(1, 1, rows, 32, dtype=torch.float64)
    image[:, :, middle] = torch.nan
    with torch.no_grad():
        maps = encoder(image)
    levels = [level for level, width in enumerate(encoder.widths) if width]
    for level, found in zip(levels, maps, strict=True):
        marked = torch.nonzero(found.isnan().any(dim=1).any(dim=0).any(dim=1)).flatten().tolist()
        windows = [_window(encoder, level, pixel) for pixel in range(found.shape[2])]
        claimed = [pixel for pixel, (first, last) in enumerate(windows) if first <= middle <= last]
        assert marked
        assert set(marked) <= set(claimed)
        assert len(claimed) <= len(marked) + 1


def _window(encoder, level, pixel):
    first = last = pixel
    while level >= 0:
        for layer in reversed(encoder.paths[level]):
            first, last = layer[0].reads(first, last)
        level = max((k for k in range(level) if encoder.widths[k]), default=-1)
    return first, last


def test_a_window_of_a_backbone_network_with_its_halo_gives_what_the_whole_image_gives():
    torch.manual_seed(0)
    model = models.unet(backbone="resnet10t", depth=4, width=4).eval().double()
    shape = model.geometry
    assert shape.tile_exact
    halo, stride = shape.halo[0], shape.stride[0]
    rows = 2 * halo + 6 * stride
    image = torch.randn(1, 1, rows, 32, dtype=torch.float64)
    first, last = 4 * stride, 5 * stride
    read = slice(0, last + halo)
    with torch.no_grad():
        whole, part = model(image)[0], model(image[:, :, read])[0]
        less = model(image[:, :, : last + stride])[0]
    assert torch.allclose(part[:, :, first:last], whole[:, :, first:last], rtol=0, atol=1e-12)
    assert not torch.allclose(less[:, :, first:last], whole[:, :, first:last], rtol=0, atol=1e-12)


ROWS = [
    ("unet", {}),
    ("unet", {"merge": "sum", "up": "transposed", "block": "residual"}),
    ("unet_e", {}),
    ("unet_plus", {"supervised": True}),
    ("unet_plus_plus", {"supervised": True}),
    ("unet_3_plus", {"supervised": True}),
]


@pytest.mark.parametrize(("name", "options"), ROWS, ids=str)
def test_gradient_reaches_every_parameter_over_a_backbone(name, options):
    torch.manual_seed(0)
    model = models.build(name, backbone="resnet10t", width=4, depth=4, **options)
    sum(logits.square().mean() for logits in model(torch.randn(2, model.in_channels, 32, 48))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("stem", [False, True])
def test_every_kind_of_backbone_trains_prunes_and_saves(name, stem):
    torch.manual_seed(0)
    options = {"backbone": name, "width": 4, "in_channels": 2, "classes": 3, "stem": stem}
    model = models.unet_plus_plus(**options)
    (logits,) = model(torch.randn(2, 2, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    other = models.unet_plus_plus(**options)
    other.load_state_dict(model.state_dict())
    image = torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(image)[0], other.eval()(image)[0])


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "mambaout_femto"])
def test_pruned_networks_cut_the_backbone_and_share_its_weights(name):
    model = models.unet_plus_plus(backbone=name, width=4, supervised=True, stem=True).eval()
    pruned = model.pruned(3)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(pruned(image)[0], model(image)[2])
    ours, all_of_them = dict(pruned.named_parameters()), dict(model.named_parameters())
    assert ours.keys() < all_of_them.keys()
    assert all(parameter is all_of_them[key] for key, parameter in ours.items())
    net = {key for key in all_of_them if key.startswith("encoder.net.")}
    assert 0 < len(net & ours.keys()) < len(net)
    pruned.train()(image.repeat(2, 1, 1, 1))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in ours.values())


def test_nodes_read_no_level_that_the_backbone_has_no_map_of():
    with torch.device("meta"):
        model = models.unet_plus_plus(backbone="resnet10t", width=4, supervised=True)
        assert model.topology.reads[Node(0, 1)] == (Node(1, 0),)
        assert model.topology.reads[Node(0, 2)] == (Node(0, 1), Node(1, 1))
        coarse = models.unet(backbone="convnext_atto", width=4)
        assert coarse.topology.reads[Node(1, 4)] == (Node(2, 3),)
        full = models.unet(backbone="convnext_atto", width=4, stem=True)
        assert full.topology == topology.unet(6)
        assert full.encoder.widths == (4, 8, 40, 80, 160, 320)


def test_an_output_that_is_left_with_nothing_to_read_is_refused():
    with pytest.raises(TopologyError, match="the output x0_1 has nothing to read without x0_0, x1_0"):
        models.unet_plus_plus(backbone="convnext_atto", supervised=True)
    with pytest.raises(TopologyError, match="the output x1_0 has nothing to read without x1_0"):
        topology.Topology({Node(0, 1): (Node(1, 0),)}, (Node(1, 0), Node(0, 1))).without([Node(1, 0)])


def test_a_topology_that_lacks_nothing_stays_as_it_is():
    table = topology.unet_plus_plus(4)
    assert table.without([]) == table


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inception_v4", "map of stride 2 has a side of 45 for an image of 96, not 48"),
        (
            "vit_tiny_patch16_224",
            "its maps have the strides 16, 16, 16; each level needs a stride of its own",
        ),
        ("vit_small_patch14_dinov2", "strides 14, 14, 14"),
        ("coatnet_0_224", "it takes no image of 96 x 128"),
    ],
)
def test_networks_whose_maps_are_no_pyramid_are_refused(name, message):
    with pytest.raises(ValueError, match=f"{name} cannot be a backbone: .*{message}"):
        blank(name, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ndim": 3}, "the backbone resnet10t takes images of 2 axes, not 3"),
        ({"pools": [(2, 2)] * 5}, "pools cannot be chosen with the backbone resnet10t"),
        ({"depth": 7}, r"resnet10t has maps of stride 2, 4, 8, 16, 32: depth can be 2 to 6, not 7"),
        ({"backbone": None, "stem": True}, "name a backbone with it"),
    ],
)
def test_options_that_contradict_a_backbone_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.unet(**{"backbone": "resnet10t"} | options)


@pytest.mark.parametrize("name", ["resnet43", "hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "../x"])
def test_only_plain_names_of_timm_are_taken(name):
    with pytest.raises(UsageError, match="timm has no network called"):
        models.unet(backbone=name)


def test_an_illegal_size_is_refused_in_the_words_of_the_family():
    model = models.unet(backbone="resnet10t", width=4)
    with pytest.raises(
        ValueError, match=r"cannot take a side of 80: level 4 is 5 pixels.*Nearest sides: 64, 96"
    ):
        model(torch.zeros(1, 1, 80, 64))


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        EnvironmentFault, match=r"uv sync --extra backbones.*pip install 'skipway\[backbones\]'"
    ):
        models.unet(backbone="resnet34")


def test_networks_without_a_backbone_do_not_import_timm():
    code = "import sys; from skipway import models; models.unet(width=2); assert 'timm' not in sys.modules"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_multiplications_of_a_backbone_are_those_of_its_convolutions():
    """resnet18 at 224 takes 1.82 G with its classifier of 512 · 1000 (He et al. 2016, table 1)."""
    assert blank("resnet18", 3).macs((224, 224)) == 1_814_073_344 - 512_000
    with torch.device("meta"):
        plain, stemmed = (models.unet(backbone="resnet18", stem=stem, width=4) for stem in (False, True))
    stem = 32 * 32 * 9 * (1 * 4 + 4 * 4)
    assert count_macs(stemmed, (32, 32)) == count_macs(plain, (32, 32)) + stem + 32 * 32 * 9 * 4 * 4


def weights_of(name, in_channels=3):
    import timm

    return timm.create_model(name, in_chans=in_channels).state_dict()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_weights_from_a_file_with_the_first_convolution_adapted(channels, tmp_path):
    file = tmp_path / "resnet10t.safetensors"
    state = weights_of("resnet10t")
    save_file(state, file)
    torch.manual_seed(1)
    model = models.unet(in_channels=channels, backbone="resnet10t", width=4, stem=True)
    before = {key: value.clone() for key, value in model.state_dict().items() if ".net." not in key}
    drawn = torch.get_rng_state()
    source = load_pretrained(model, file)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (source.encoder, source.file) == ("resnet10t", file)
    net = model.encoder.net.state_dict()
    given = state["conv1.0.weight"]
    wanted = {1: given.sum(1, keepdim=True), 3: given, 5: given[:, [0, 1, 2, 0, 1]] * 3 / 5}[channels]
    assert torch.allclose(net["conv1_0.weight"] if "conv1_0.weight" in net else net["conv1.0.weight"], wanted)
    assert torch.equal(net["layer4.0.conv2.weight"], state["layer4.0.conv2.weight"])
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_weights_fill_a_pruned_backbone_too(tmp_path):
    file = tmp_path / "w.safetensors"
    state = weights_of("mobilenetv3_small_050")
    save_file(state, file)
    model = models.unet(in_channels=3, backbone="mobilenetv3_small_050", width=4, depth=4)
    load_pretrained(model, str(file))
    assert torch.equal(model.encoder.net.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def test_code_missing_files_and_other_networks_are_refused(tmp_path):
    model = models.unet(in_channels=3, backbone="resnet10t", width=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pickle = tmp_path / "resnet10t.pth"
    torch.save(weights_of("resnet10t"), pickle)
    with pytest.raises(SecurityError, match="safetensors, which cannot hold code"):
        load_pretrained(model, pickle)
    with pytest.raises(SecurityError):
        load_pretrained(model, pickle.rename(tmp_path / "renamed.safetensors"))
    with pytest.raises(CheckpointError, match="file is missing"):
        load_pretrained(model, tmp_path / "nothing.safetensors")
    other = tmp_path / "other.safetensors"
    save_file(weights_of("mobilenetv3_small_050"), other)
    with pytest.raises(CheckpointError, match="does not fit resnet10t"):
        load_pretrained(model, other)
    with pytest.raises(UsageError, match="rename the file"):
        load_pretrained(model, other.rename(tmp_path / "other.bin"))
    with pytest.raises(UsageError, match="unet was built without a backbone"):
        load_pretrained(models.unet(width=2), other)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub cache, and the calls that would have gone to a server."""
    import huggingface_hub
    import huggingface_hub.file_download  # the package imports its parts when they are first asked for

    asked = []

    def fetch(repository, filename):
        asked.append((repository, filename))
        file = tmp_path / "fetched.safetensors"
        save_file(weights_of("resnet10t"), file)
        return str(file)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.file_download.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda address: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return asked


def test_an_empty_cache_is_one_clear_refusal_and_no_server_is_asked(hub):
    model = models.unet(in_channels=3, backbone="resnet10t", width=4)
    with pytest.raises(EnvironmentFault) as refusal:
        load_pretrained(model, "cache")
    assert hub == []
    text = str(refusal.value)
    for part in ("resnet10t", "timm/resnet10t.c3_in1k/model.safetensors", "--pretrained FILE"):
        assert part in text


def test_a_download_happens_only_when_it_is_asked_for(hub):
    model = models.unet(in_channels=3, backbone="resnet10t", width=4)
    source = load_pretrained(model, "download")
    assert hub == [("timm/resnet10t.c3_in1k", "model.safetensors")]
    assert source.licence == "apache-2.0"


def test_the_cache_is_read_without_a_server(hub, tmp_path):
    folder = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    state = weights_of("resnet10t")
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    model = models.unet(in_channels=3, backbone="resnet10t", width=4)
    load_pretrained(model, "cache")
    assert hub == []
    key = "layer1.0.conv1.weight"
    assert np.array_equal(model.encoder.net.state_dict()[key], state[key])


def test_a_failed_download_names_the_file(hub, monkeypatch):
    import huggingface_hub

    def fail(*_):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(EnvironmentFault, match=r"timm/resnet34.a1_in1k/model.safetensors: .*no route"):
        backbones.find_weights("resnet34", download=True)


def test_building_draws_the_same_weights_for_the_same_seed():
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(models.unet(backbone="resnet10t", width=4).state_dict())
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])
    assert isinstance(models.unet(backbone="resnet10t", width=4).encoder, BackboneEncoder)


def test_a_run_folder_needs_neither_the_file_nor_the_cache_to_load(hub, tmp_path):
    from skipway.runs import Run
    from skipway.weights import load_model, save_model

    file = tmp_path / "resnet10t.safetensors"
    save_file(weights_of("resnet10t"), file)
    config = {"in_channels": 3, "classes": 2, "backbone": "resnet10t", "width": 4, "stem": True}
    model = models.unet(**config).eval()
    load_pretrained(model, file)
    file.unlink()
    run = Run.create(tmp_path / "run")
    save_model(run, model, "unet", config, 1)
    loaded = load_model(run, torch.device("cpu"))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded(image)[0], model(image)[0], atol=1e-6)
    assert hub == []


@pytest.mark.parametrize(("name", "exact"), [("resnet10t", True), ("mobilenetv3_small_050", False)])
def test_a_network_is_as_exact_in_tiles_as_its_backbone(name, exact):
    with torch.device("meta"):
        assert models.unet(backbone=name, width=4).geometry.tile_exact is exact
