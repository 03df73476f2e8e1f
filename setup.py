"""Packaging of astra_jax."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="astra-jax",
    version="0.1.0",
    description="Action spotting in football broadcasts: ASTRA in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    # A wheel has no top-level configs/: it carries them inside the package.
    packages=[*find_packages(include=["astra_jax", "astra_jax.*"]), "astra_jax.configs"],
    package_dir={"astra_jax.configs": "configs"},
    package_data={
        "astra_jax.data": ["splits/*.txt"],
        "astra_jax.data.simulation": ["soccernet_statistics.json"],
    },
    install_requires=[
        "absl-py>=2.1",
        "flax>=0.12",
        "grain>=0.2.16",
        "jax>=0.8",
        "jaxtyping>=0.3",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.22",
        "tqdm>=4.66",
    ],
    extras_require={
        "plots": ["matplotlib>=3.9"],  # the figures of docs/, drawn by experiments/
        # Where a run reports to (config.logging).
        "tensorboard": ["tensorboardX>=2.6"],
        "wandb": ["wandb>=0.17"],
        # Reads published weights (astra import-torch, model.audio.init_from). PyPI's torch brings
        # CUDA on Linux: --extra-index-url https://download.pytorch.org/whl/cpu has one without.
        "torch": ["torch>=2.6", "safetensors>=0.4"],
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "docs": ["pdoc>=16"],
        "benchmark": ["torch>=2.6"],  # benchmarks/speed.py
        # The judges of the suite: the official metric, librosa; scikit-learn for the baseline;
        # torch and safetensors write the files that the import reads.
        "test": [
            "SoccerNet==0.1.62",
            "beartype>=0.21",
            "hypothesis>=6.100",  # inputs that nobody thought of: labels, results, lists, rates
            "librosa>=0.11",
            "pytest>=8.4",
            "pytest-xdist>=3.6",
            "safetensors>=0.4",
            "scikit-learn>=1.5",
            "tensorboardX>=2.6",
            "torch==2.13.0",
            "setuptools>=77",  # builds the wheel that a test installs
        ],
        # What the checks need beside them (CONTRIBUTING.md).
        "dev": ["mypy>=2.0", "pre-commit>=4.0", "pytest-cov>=7.0", "ruff>=0.17"],
    },
    entry_points={"console_scripts": ["astra = astra_jax.cli:main"]},
)
