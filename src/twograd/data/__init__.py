"""Real data sets that need no network: read out of packages that are installed anyway.

    digits = data.digits()                       # scikit-learn's, 1797 images of 8 x 8
    train, test = digits.split(test=360, seed=0)

    text = data.pydoc()                          # Python's own help texts
    trees = data.conditions()                    # expressions of Python's library: is it a condition?
    for images, labels in data.DataLoader(train, batch_size=64, shuffle=True): ...

Read ``dataset.py`` for what a data set is, ``loaders.py`` for those that there are, ``loading.py`` for batches.
"""

from twograd.data.dataset import DamagedData as DamagedData
from twograd.data.dataset import DataError as DataError
from twograd.data.dataset import Dataset as Dataset
from twograd.data.dataset import MissingData as MissingData
from twograd.data.dataset import Source as Source
from twograd.data.dataset import Text as Text
from twograd.data.dataset import Trees as Trees
from twograd.data.loaders import conditions as conditions
from twograd.data.loaders import digits as digits
from twograd.data.loaders import mnist_5k as mnist_5k
from twograd.data.loaders import pydoc as pydoc
from twograd.data.loading import DataLoader as DataLoader
from twograd.data.loading import Subset as Subset
from twograd.data.loading import TensorDataset as TensorDataset
from twograd.data.loading import default_collate as default_collate
from twograd.data.loading import random_split as random_split
