"""Does ``python -m label_image folder/`` keep the speed of stage one, over 300 photos?

All as whole processes, stage one with an empty cache; all load the frozen network from disk.
"""

import itertools

from measure import Finding, Inputs, alternate, command, main, of, photos, ratios, speeds

PHOTOS, ROUNDS = 300, 3
ENGINES = ("tensorflow", "openvino")


def measure(inputs: Inputs) -> list[Finding]:
    caches = itertools.count()
    with photos(inputs.image_dir, PHOTOS) as folder:
        flags = ["--image_dir=photos", f"--weights={inputs.weights}", "--model_dir=models"]
        command("-m", "retrain", *flags, "--how_many_training_steps=100", folder=folder)()

        def stage_one() -> None:
            new = f"--bottleneck_dir=cache{next(caches)}"
            command("-m", "bottlenecks", *flags, new, folder=folder)()

        seconds = alternate(
            {
                "stage one": stage_one,
                **{
                    engine: command(
                        "-m", "label_image", "--engine", engine, "photos", folder=folder
                    )
                    for engine in ENGINES
                },
            },
            ROUNDS,
        )
    return [
        *(
            of(
                f"python -m label_image folder/, {engine} / stage one",
                *(ratios(seconds, "stage one", engine), "times"),
                at_least=0.9,
            )
            for engine in ENGINES
        ),
        *speeds(seconds, PHOTOS),
    ]


if __name__ == "__main__":
    main(measure, __doc__)
