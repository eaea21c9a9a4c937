"""The numbers printed in the FedMP paper (Jiang et al. 2022, section V), for the columns beside ours."""

from __future__ import annotations

MAIN = ("fedavg", "up_fl", "fedprox", "flexcom", "fedmp")  # Syn-FL, UP-FL, FedProx, FlexCom, FedMP
LANGUAGE = ("fedavg", "up_fl", "fedmp")  # of Table IV
ASYNCHRONOUS = ("asyn_fl", "asyn_fedmp")
MIXTURES = ("fedmp_nested", "fedmp_recovery", "fedmp_fedbuff")  # in no paper

# Table III: accuracy at a time budget, network -> method -> share.
TABLE3 = {
    network: dict(zip(MAIN, row, strict=True))
    for network, row in {
        "cnn": (0.9383, 0.9431, 0.9582, 0.9621, 0.9717),
        "alexnet": (0.8159, 0.8174, 0.8178, 0.8191, 0.8234),
        "vgg19": (0.8504, 0.8493, 0.8515, 0.8533, 0.8566),
        "resnet50": (0.4715, 0.4643, 0.4755, 0.4737, 0.4785),
    }.items()
}
BUDGETS_S = {"cnn": 20_000.0, "alexnet": 30_000.0, "vgg19": 50_000.0, "resnet50": 100_000.0}
TARGETS = {"cnn": 0.90, "alexnet": 0.80, "vgg19": 0.80, "resnet50": 0.45}  # section V-E, test accuracy
NONIID_TARGETS = {"cnn": 0.90, "alexnet": 0.77, "vgg19": 0.80, "resnet50": 0.42}  # section V-F

# Table IV: (validation perplexity, test perplexity, speed-up to a test perplexity of 150 over Syn-FL).
TABLE4 = {"fedavg": (156.35, 148.15, 1.0), "up_fl": (158.94, 149.81, 0.8), "fedmp": (155.47, 146.95, 1.6)}
PERPLEXITY_TARGET = 150.0

# FedMP's time to the target accuracy goes into that of the other method so many times.
# Sections V-C and V-E (Figs. 6 and 8), five workers of cluster A and five of B
SPEEDUPS = {
    "cnn": {"fedavg": 2.8, "fedprox": 2.0, "flexcom": 1.8},
    "alexnet": {"fedavg": 2.2, "up_fl": 2.0, "fedprox": 1.8, "flexcom": 1.6},
    "vgg19": {"fedprox": 1.2, "flexcom": 1.2},
    "resnet50": {"fedprox": 1.1, "flexcom": 1.2},
}
ALEXNET_S = {"fedavg": 24_017.0, "fedmp": 10_906.0}  # s to 80 %
# Section V-E (Fig. 8), by scenario
SCENARIO_SPEEDUPS = {
    ("cnn", "low"): {"fedavg": 1.3},
    **{(network, "medium"): own for network, own in SPEEDUPS.items()},
    ("cnn", "high"): {"fedavg": 4.1},
    ("alexnet", "high"): {"fedavg": 3.6, "up_fl": 3.0, "fedprox": 2.3, "flexcom": 2.0},
}
# Section V-F (Fig. 9): VGG-19, non-IID level 30: FedMP's time is shorter by 30, 23, 16 and 12 %
NONIID_SPEEDUPS = {
    ("vgg19", 30): {"fedavg": 1 / 0.70, "up_fl": 1 / 0.77, "fedprox": 1 / 0.84, "flexcom": 1 / 0.88},
}
# Section V-G (Fig. 10): AlexNet with 30 workers
WORKER_SPEEDUPS = {("alexnet", 30): {"fedavg": 2.4, "up_fl": 2.0, "fedprox": 2.0, "flexcom": 1.6}}
# Section V-D (Fig. 7): accuracy after 500 rounds
SYNCHRONIZATION = {"alexnet": {"fedmp": 0.823, "fedmp_bsp": 0.774}}
# Section V-H (Fig. 12): Asyn-FedMP's time to the target is shorter than Asyn-FL's by 10 to 35 %
ASYNCHRONOUS_SPEEDUP = (1 / 0.90, 1 / 0.65)
