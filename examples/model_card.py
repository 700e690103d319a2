"""Print the model card of a trained TALL, as `tall publish` would put it on the Hub. Nothing is uploaded.

python examples/model_card.py outputs/trained org/name --language he --evaluation outputs/evaluation --dataset outputs/data > card.md
python examples/model_card.py outputs/demo org/tall-demo --example "מנשה אזולאי גר בעיר"      # what `make demo` left
"""

import argparse

from tall_hf.cards import look_up_licenses, model_card


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="what `tall train` wrote, or any saved TALL")
    parser.add_argument("repo_id", help="where it will be published")
    parser.add_argument("--language", help="ISO 639 code, where the translators do not say it")
    parser.add_argument("--license", help="where it is not to be that of the parts")
    parser.add_argument("--evaluation", help="what `tall evaluate` wrote about this model")
    parser.add_argument("--dataset", help="what `tall prepare` wrote, and the model was trained on")
    parser.add_argument("--example", action="append", help="beginning of a sentence to complete; may be repeated")
    parser.add_argument("--look-up", action="store_true", help="ask the Hub for the licences of parts that are there")
    arguments = parser.parse_args()
    card = model_card(
        arguments.folder,
        repo_id=arguments.repo_id,
        language=arguments.language,
        license=arguments.license,
        evaluation=arguments.evaluation,
        dataset=arguments.dataset,
        examples=arguments.example,
        part_licenses=look_up_licenses(arguments.folder) if arguments.look_up else None,
    )
    print(card)
