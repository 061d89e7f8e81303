"""The engine `ray`: trials and measurements on a Ray cluster.

Ray is imported only in this package.
"""
