"""Print the Hebrew training sentences of the embedded little world, one a line: a corpus to try `tall prepare` on."""

from tall_hf.microworld import World


if __name__ == "__main__":
    for record in World().records()[0]:
        print(record.text)
