"""Every config value, with the paper's default. A config file changes what it needs."""

from ml_collections import ConfigDict, config_dict

from astra_jax.config.classes import CLASSES, SOFT_WINDOWS_SECONDS


def paper() -> ConfigDict:
    """The paper's model and training (sections 3.5 and 4.3), the challenge's class list.

    A value of None is filled in where it is used; the comment says with what.
    """
    config = ConfigDict()
    config.seed = 1
    # Folder of a run whose best parameters this one starts from, as far as they fit; None: fresh.
    config.init_from = config_dict.placeholder(str)
    # Parameters that don't train, by patterns of their paths such as "audio/*" ("*" crosses "/").
    # Dropout falls on what they put out all the same.
    config.freeze = ()
    config.data = _data()
    # Parameters of simulated matches (data.simulation); None: the files under data.root.
    config.simulation = None
    config.clip = ConfigDict(
        {
            "seconds": 50.0,
            "stride_seconds": 25.0,
            # Whether each epoch cuts the halves elsewhere (clips begin up to a stride earlier, on
            # whole seconds or rows of the slowest source), or always at 0, one stride, two, ...
            "random_starts": False,
            "positions_per_second": 2.0,
        }
    )
    # r_c and r_d.
    config.targets = ConfigDict({"class_radius_seconds": 2.0, "displacement_radius_seconds": 3.0})
    # "balanced", "plain" or "none"; lambda ~ Beta(alpha, beta).
    config.mixup = ConfigDict({"kind": "balanced", "alpha": 1.0, "beta": 0.6})
    config.model = _model()
    config.loss = ConfigDict(
        {
            "focal": True,
            "classification_weight": 100.0,
            "displacement_weight": 1.0,
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 5e-5,  # at batch 8; scaled by sqrt(batch / 8)
            "schedule": "epoch",  # or "step"
            "warmup_epochs": 3,
            "weight_decay": 1e-5,
            # Largest norm of the gradients of all parameters together; None: any.
            "clip_norm": config_dict.placeholder(float),
            "amsgrad": True,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 8,  # over all devices
            # Parts of the batch computed one after the other, each with its share of the memory.
            "accumulation_steps": 1,
            "epochs": 50,
            "validate_every_epochs": 1,
            "patience_epochs": 15,  # without a better or equal validation score
            "average_decay": 0.0,  # of the moving average of weights that predicts; 0: none
            "checkpoint_every_steps": 1000,  # beside the one at each epoch's end
            # Steps without finite loss and gradients are skipped; so many in a row end the run.
            "most_skipped_steps": 10,
            "log_every_steps": 100,  # of which metrics.jsonl has a line each; 0: none has
            # Folder where compiled programs are kept for the next run or evaluation, 2 GB at most;
            # None: one below the user's cache folder; "": nowhere. May change at any time.
            "compilation_cache": config_dict.placeholder(str),
        }
    )
    config.inference = _inference()
    # Whole frames a second of the metric's grid: 2 is SoccerNet's package's; the ball task's mAP@1
    # is counted at 25.
    config.evaluation = ConfigDict({"frame_rate": 2})
    # Where each line of metrics.jsonl goes besides; may change when a run is resumed.
    config.logging = ConfigDict(
        {
            "tensorboard": False,  # into WORKDIR/tensorboard; pip install 'astra-jax[tensorboard]'
            # Project on Weights & Biases; None: no report. pip install 'astra-jax[wandb]'
            "wandb_project": config_dict.placeholder(str),
        }
    )
    return config


def _data() -> ConfigDict:
    return ConfigDict(
        {
            # ROOT/league/season/match/; labels, features and audio may lie under other roots.
            "root": config_dict.placeholder(str),
            "labels_root": config_dict.placeholder(str),
            "features_root": config_dict.placeholder(str),
            "audio_root": config_dict.placeholder(str),
            "labels_file": "Labels-v2.json",
            "classes": CLASSES,
            "unknown_labels": "error",  # or "skip"
            # The halves that count, by their numbers: (1,) for one recording a match, (1, 2, 3, 4)
            # with extra time. Labels of others are left out; a match may lack files of some.
            "periods": (1, 2),
            # Shipped lists (train, valid, test, challenge) or paths of lists, text or JSON.
            "splits": {
                "train": "train",
                "valid": "valid",
                "test": "test",
                "challenge": "challenge",
            },
            "sources": (
                {
                    "pattern": "{half}_baidu_soccer_embeddings.npy",
                    "rows_per_second": 1.0,
                    "widths": (2048, 2048, 384, 2048, 2048),
                    # The published model takes them as they are; without this key a source is
                    # normalised (data.normalization). One more key: shortcut_columns, how many of
                    # its first columns the shortcut sees (without it: all). The pattern "clock" is
                    # no file but the half's clock (data.clock).
                    "normalize": False,
                },
            ),
            "audio": {
                "pattern": "audio{half}.npy",
                "frames_per_second": 100,
                "mels": 128,
                "floor_db": -80.0,
            },
            "workers": 0,  # processes that load clips; 0: threads of this one
            # "memory": files stay in memory once they were read, one copy for all processes of a
            # machine; None: the system keeps of them what it likes.
            "cache": config_dict.placeholder(str),
        }
    )


def _model() -> ConfigDict:
    return ConfigDict(
        {
            "dim": 512,
            "heads": 8,
            "feed_forward": 2048,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "hierarchical": True,
            "uncertainty": True,
            # Inside the transformer: on attention weights, on sublayers' outputs and between the
            # feed-forward's linears. The paper has 0.4 everywhere (section 4.3), its published code
            # 0.1 here and 0.4 in the next two: with 0.4 here the dropout is the paper's.
            "dropout": 0.1,
            "embedding_dropout": 0.4,
            "head_dropout": 0.4,
            "temporal_dropout": 0.5,
            "temporal_switch": 0.3,
            "codes": "uniform",  # or "sinusoidal": codes and queries start on one clock
            # Probability of an action at which the classification head starts; None: one half.
            "class_prior": config_dict.placeholder(float),
            "aligned_attention": False,  # whether queries start by looking at their own time
            "norm": "post",  # LayerNorm after the residual, or "pre": before the sublayer
            # How far a position sees raw columns directly, in seconds, at knots 0, 1, 2, 4, ...
            # away; None: not at all (model.shortcut).
            "shortcut_seconds": config_dict.placeholder(float),
            # VGGish: a segment of 96 frames (0.96 s) becomes one token.
            "audio": {
                "segment_frames": 96,
                "channels": (64, 128, 256, 256, 512, 512),
                "hidden": 4096,
                # File of VGGish's AudioSet weights that its convolutions and middle linear start
                # from, as the published model's did (astra_jax.torch_import.vggish); None: drawn.
                "init_from": config_dict.placeholder(str),
            },
            # Of the computation: "float32", "bfloat16" or "float32_highest", in which GPU and TPU
            # round nothing before they multiply; None: bfloat16 on GPU and TPU, float32 on CPU.
            "dtype": config_dict.placeholder(str),
            # Whether the backward pass computes activations again instead of keeping them, for
            # larger batches on a GPU or TPU. XLA's CPU compiler saves no memory by it.
            "remat": False,
        }
    )


def _inference() -> ConfigDict:
    return ConfigDict(
        {
            "stride_seconds": 8.0,
            "overlap": "max",  # what stays where windows overlap: the largest score, or the "mean"
            # Windows at a time, over the devices of this host (on a CPU 8, if this is more).
            "batch_size": 32,
            "threshold": 0.01,
            "suppression": {
                "kind": "soft",  # or "hard"
                "decay": "quadratic",  # or "linear", "sqrt"
                "windows_seconds": SOFT_WINDOWS_SECONDS,  # one a class
                "window_scale": 1.0,  # times the windows; above 1 where signals are slow
            },
        }
    )
