"""Images and labels to masks and a model: python folder_to_model.py IMAGES LABELS.csv OUT [section.key=value ...]."""

import sys

import vwl

images, labels, out, *overrides = sys.argv[1:]
index = vwl.prepare_folder(images, labels, val_share=0.2)
result = vwl.run(index, "demo", out, overrides=overrides, backend="local", on_progress=print)
print({image_id: mask.shape for image_id, mask in result.masks.items()})
model = vwl.load_model(out)
print(model.predict(index.read_image(index.rows[0])).classes)
