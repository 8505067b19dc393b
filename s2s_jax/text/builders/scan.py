"""SCAN: commands to sequences of actions, with tests of generalization to new combinations."""

from typing import ClassVar

import tensorflow_datasets as tfds

from s2s_jax.text.builders import HELD_OUT, Pair, PublishedPairs

SPLIT_FOLDERS = {  # the configurations, one per published split of the 20,910 commands, and the upstream folder of each
    "simple": "simple_split",
    "length": "length_split",
    "addprim_jump": "add_prim_split",
    "addprim_turn_left": "add_prim_split",
    "filler_num0": "filler_split",
    "filler_num1": "filler_split",
    "filler_num2": "filler_split",
    "filler_num3": "filler_split",
    "template_around_right": "template_split",
    "template_jump_around_right": "template_split",
    "template_opposite_right": "template_split",
    "template_right": "template_split",
}


class Scan(PublishedPairs):
    """SCAN: commands to actions, `jump twice` -> `I_JUMP I_JUMP`. Lake and Baroni 2018, arXiv:1711.00350.

    The filler and template splits are of Loula et al. 2018, arXiv:1807.07545. SCAN has a train and a test file for
    each configuration and no validation split: every 20th line of the train file is held out here. It has the
    distribution of the train split, so it does not measure the generalization that the test split measures; and the
    addprim train files repeat one line many times (`jump` 1,467 times, `turn left` 2,189), so that line is in both.
    """

    # TFDS has a `scan` of its own (features commands and actions, no validation), which this one replaces: the version
    # must differ from its 1.1.1, or both would be stored in one folder.
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in SPLIT_FOLDERS]
    ROOT = "https://raw.githubusercontent.com/brendenlake/SCAN/c4b756cbc010d75c912f16c42c8f15dc6b7e6c8f/"
    FILES: ClassVar = {
        "simple_split/tasks_train_simple.txt": (
            3267938,
            "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
        ),
        "simple_split/tasks_test_simple.txt": (
            812450,
            "1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6",
        ),
        "length_split/tasks_train_length.txt": (
            2723418,
            "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2",
        ),
        "length_split/tasks_test_length.txt": (
            1356970,
            "0760752ed34a75116ae11dcc1ee17526b7500060da1366540730fa24894d7db3",
        ),
        "add_prim_split/tasks_train_addprim_jump.txt": (
            2579619,
            "e3c78485692e028eed4205e1b8b3fd0e785ef2c12d45b5b89204dadf5b239e23",
        ),
        "add_prim_split/tasks_test_addprim_jump.txt": (
            1531555,
            "8147ae2651422c701162e174d9d66158daa57858a26b30317ac61797118ac7a5",
        ),
        "add_prim_split/tasks_train_addprim_turn_left.txt": (
            3974537,
            "1b3fed86055dd7689d217f1b90cc8960aeb1cf200f4f209dc47935761b05304c",
        ),
        "add_prim_split/tasks_test_addprim_turn_left.txt": (
            173679,
            "15a82c2d25ac7c3c1fff7e18051fb085974ef3617de895c520d02144396a10e2",
        ),
        "filler_split/tasks_train_filler_num0.txt": (
            2558693,
            "d5d35d174d557645fc61f289424afa0d95fde21422c59a9819e2d0fcfa9d419f",
        ),
        "filler_split/tasks_test_filler_num0.txt": (
            333598,
            "a3a27e06adece97da26ae506de08c4b6848035970c561691edbf4dcb1e45f9af",
        ),
        "filler_split/tasks_train_filler_num1.txt": (
            2851719,
            "fe2208764e3b873420d31929e137918566b9e49d0052f7be2af68ad129006273",
        ),
        "filler_split/tasks_test_filler_num1.txt": (
            333598,
            "a3a27e06adece97da26ae506de08c4b6848035970c561691edbf4dcb1e45f9af",
        ),
        "filler_split/tasks_train_filler_num2.txt": (
            3158377,
            "732f3663553b2a41a9a37d2f07c9719a4d9d3f2cd190380e572697b2e4ea730f",
        ),
        "filler_split/tasks_test_filler_num2.txt": (
            333598,
            "a3a27e06adece97da26ae506de08c4b6848035970c561691edbf4dcb1e45f9af",
        ),
        "filler_split/tasks_train_filler_num3.txt": (
            3468272,
            "f63ba9149feeb021fbb44132265d7b15e6a07e6b12c9d3220418d97d97d71735",
        ),
        "filler_split/tasks_test_filler_num3.txt": (
            333598,
            "a3a27e06adece97da26ae506de08c4b6848035970c561691edbf4dcb1e45f9af",
        ),
        "template_split/tasks_train_template_around_right.txt": (
            2558693,
            "d5d35d174d557645fc61f289424afa0d95fde21422c59a9819e2d0fcfa9d419f",
        ),
        "template_split/tasks_test_template_around_right.txt": (
            1243177,
            "fc78a5d1077dc2c206d6c42ed89fb9022867618c3f331179bafd3ec1ca699474",
        ),
        "template_split/tasks_train_template_jump_around_right.txt": (
            3468272,
            "f63ba9149feeb021fbb44132265d7b15e6a07e6b12c9d3220418d97d97d71735",
        ),
        "template_split/tasks_test_template_jump_around_right.txt": (
            333598,
            "a3a27e06adece97da26ae506de08c4b6848035970c561691edbf4dcb1e45f9af",
        ),
        "template_split/tasks_train_template_opposite_right.txt": (
            2990057,
            "b4fe224a2dd636952a90b7e5552017620ab07e0c465db0ee2dddfb0f727feeb6",
        ),
        "template_split/tasks_test_template_opposite_right.txt": (
            871363,
            "e7fc129633f82decd39248517a8945385b77009f721f9f4f58df213f73a29a47",
        ),
        "template_split/tasks_train_template_right.txt": (
            3173282,
            "a09e125dc95c59843d087fd50852c57bc4e77997e2cd69aa04a9a934eea9089b",
        ),
        "template_split/tasks_test_template_right.txt": (
            729823,
            "506bed814f8a6ec1eef9c226eb9b2055bc984925902a94d020a23a41080993bb",
        ),
    }
    HOMEPAGE = "https://github.com/brendenlake/SCAN"
    LICENSE = "BSD"

    def published(self) -> dict[str, tuple[str, ...]]:
        """The train and the test file of the configuration."""
        name = self.builder_config_name or ""
        return {split: (f"{SPLIT_FOLDERS[name]}/tasks_{split}_{name}.txt",) for split in ("train", "test")}

    def pair(self, *lines: str) -> Pair:
        """A command and its actions, after `IN:` and `OUT:`."""
        command, actions = lines[0].removeprefix("IN: ").split(" OUT: ")
        return command, actions

    def divide(self, published: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
        """Train without every 20th of its lines, validation of these lines, test."""
        train = list(published["train"])
        validation = train[HELD_OUT - 1 :: HELD_OUT]
        del train[HELD_OUT - 1 :: HELD_OUT]
        return {"train": train, "validation": validation, "test": published["test"]}
