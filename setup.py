"""The package `prfl_jax`; pyproject.toml holds the settings of the tools, BUILD.md the reason for each dependency."""

from setuptools import find_packages, setup

setup(
    name="prfl_jax",
    version="0.1.0",
    description="Asynchronous, heterogeneous federated learning with sub-models, on a simulated network, in JAX.",
    packages=find_packages(include=["prfl_jax", "prfl_jax.*"]),
    package_data={"prfl_jax": ["py.typed"], "prfl_jax.report": ["*.json"]},
    python_requires=">=3.11",
    # the two ends that are tested (BUILD.md)
    classifiers=["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.13"],
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "etils[epath]>=1.15",
        "numpy>=2.4",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources>=7.1",
        "absl-py>=2.5",
        "pytest>=9.2",
        "ml_collections>=1.1",
        "mlxtend>=0.25",
        "tqdm>=4.70",
        "matplotlib>=3.11",
        "filelock>=3.20",
        "sortedcontainers>=2.4",
    ],
    extras_require={
        "test": [
            "pytest-cov>=7.1",
            "pytest-xdist>=3.8",
            "hypothesis>=6.170",
            "jsonschema>=4.26",
            "ruff>=0.17",
            "mypy>=2.4",
            "optuna>=5.0",
            "plotly>=6.0",
            "selenium>=4.0",
            "tensorboardX>=2.6",
            "dp-accounting>=0.6",
        ],
        "bench": ["torch"],
        "sweep": ["optuna>=5.0"],
        "report": ["plotly>=6.0"],
        "privacy": ["dp-accounting>=0.6"],
        "tensorboard": ["tensorboardX>=2.6"],
    },
)
