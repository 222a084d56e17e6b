"""Events, written in the transaction of the change they report, and the reasons why work waits."""
