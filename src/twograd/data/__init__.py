"""Real data sets that need no network: read out of packages that are installed anyway.

    digits = data.digits()                       # scikit-learn's, 1797 images of 8 x 8
    train, test = digits.split(test=360, seed=0)

Read ``dataset.py`` for what a data set is, ``loaders.py`` for those that there are.
"""

from twograd.data.dataset import DamagedData as DamagedData
from twograd.data.dataset import DataError as DataError
from twograd.data.dataset import Dataset as Dataset
from twograd.data.dataset import MissingData as MissingData
from twograd.data.loaders import digits as digits
from twograd.data.loaders import mnist_5k as mnist_5k
