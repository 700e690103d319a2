"""TALLTextGenerationPipeline: `pipeline("text-generation")` for a TALL - next words, or the text continued."""

from itertools import islice

from transformers import Pipeline


class TALLTextGenerationPipeline(Pipeline):
    """Continue sentences of a low-resource language, or list their most probable next words.

    Args at loading or at each call:
        top_k: list this many next words instead of continuing the text.
        max_words, refresh_words: as in `TALLForCausalLM.complete`.
        streamer: for a single text, a TextStreamer or TextIteratorStreamer that gets the answer word by word.
        generate_kwargs: a dict for `generate`, when the text is continued.

    Returns for each text:
        `[{"generated_text": text and continuation}]`, or with `top_k` a list of `{"word": ..., "score": probability}`.

    Example:
        >>> pipe = pipeline(model="org/tall-qwen", trust_remote_code=True)
        >>> pipe("דנה גרה בבית", top_k=3)
        >>> pipe("דנה גרה בבית", streamer=TextStreamer(pipe.processor.tokenizer))
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def _sanitize_parameters(
        self, top_k=None, max_words=None, refresh_words=None, streamer=None, generate_kwargs=None, **unknown
    ):
        if unknown:
            raise TypeError(
                f"Unknown argument {', '.join(map(repr, unknown))}. This pipeline takes top_k, max_words, refresh_words, "
                "streamer and generate_kwargs (a dict for `generate`)."
            )
        forward_params = {"top_k": top_k, "max_words": max_words, "refresh_words": refresh_words, "streamer": streamer}
        forward_params = {name: value for name, value in forward_params.items() if value is not None}
        if generate_kwargs:
            forward_params["generate_kwargs"] = dict(generate_kwargs)
        return {}, forward_params, {}

    def preprocess(self, input_):
        if not isinstance(input_, str):
            raise TypeError(f"Expected a text or a list of texts, got {type(input_).__name__}.")
        return {"texts": [input_]}

    def _forward(self, model_inputs, top_k=None, generate_kwargs=None, **complete_params):
        texts = model_inputs["texts"]
        if top_k is not None:
            if complete_params or generate_kwargs:
                raise ValueError("`top_k` lists next words; it does not go with settings for continuing the text.")
            return self.model.next_words(texts, self.processor, top_k=top_k)
        return self.model.complete(texts, self.processor, **complete_params, **(generate_kwargs or {}))

    def postprocess(self, model_outputs):
        [answer] = model_outputs
        if isinstance(answer, str):
            return [{"generated_text": answer}]
        return [{"word": word, "score": probability} for word, probability in answer]

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        if "streamer" in forward_params:
            raise ValueError("`streamer` takes a single text, not a list: call the pipeline for each.")
        # The base class collates tensors; here a batch is a list of texts, which the processor pads.
        texts = (self.preprocess(one, **preprocess_params)["texts"][0] for one in inputs)
        while batch := list(islice(texts, batch_size)):
            for answer in self.forward({"texts": batch}, **forward_params):
                yield self.postprocess([answer], **postprocess_params)

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model and the whole processor; the base class would keep one tokenizer of three."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
