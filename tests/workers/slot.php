<?php echo "process ", getmypid(), "\n";
