#!/bin/bash
# A Slurm of one machine, called by the names of its commands; $FAKE_SLURM has its jobs. While a file `hold` is there all are pending.
echo "${0##*/} $*" >> "$FAKE_SLURM/calls"
case ${0##*/} in
sbatch)
    [ -f "$FAKE_SLURM/refuse" ] && { echo "sbatch: error: invalid partition specified" >&2; exit 1; }
    exec 9> "$FAKE_SLURM/lock"; flock 9
    id=$((101 + $(find "$FAKE_SLURM" -name '*.sh' | wc -l)))
    cp "$1" "$FAKE_SLURM/$id.sh"; echo PENDING > "$FAKE_SLURM/$id.state"
    exec 9>&-
    SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 SLURM_JOB_NUM_NODES=1 SLURM_NNODES=1 SLURM_JOB_NAME=fit \
        SLURM_JOB_NODELIST=node1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \
        setsid "${0%/*}/job" < /dev/null > /dev/null 2>&1 &
    echo "Submitted batch job $id" ;;
job)
    state=$FAKE_SLURM/$SLURM_JOB_ID.state
    while [ -f "$FAKE_SLURM/hold" ] && [ "$(< "$state")" = PENDING ]; do sleep 0.1; done
    [ "$(< "$state")" = PENDING ] || exit
    echo RUNNING > "$state"
    if bash "$FAKE_SLURM/$SLURM_JOB_ID.sh"; then end=COMPLETED; else end=FAILED; fi
    [ -f "$FAKE_SLURM/$SLURM_JOB_ID.cancelled" ] && end="CANCELLED by 1000"
    echo "$end" > "$state" ;;
srun)
    echo $$ > "$FAKE_SLURM/$SLURM_JOB_ID.step"
    while [ "${1:0:2}" = -- ]; do
        case $1 in
        --output) out=$2; shift ;;
        --error) err=$2; shift ;;
        esac
        shift
    done
    name() { local path=${1//%j/$SLURM_JOB_ID}; echo "${path//%t/0}"; }
    exec "$@" >> "$(name "$out")" 2>> "$(name "$err")" ;;
sacct)
    echo "JobID|State|NodeList"
    for state in "$FAKE_SLURM"/*.state; do
        id=${state##*/}; echo "${id%.state}|$(< "$state")|node1"
    done ;;
scancel)
    if [ -f "$FAKE_SLURM/$1.step" ]; then
        touch "$FAKE_SLURM/$1.cancelled"; kill -TERM "$(< "$FAKE_SLURM/$1.step")"
    else
        echo "CANCELLED by 1000" > "$FAKE_SLURM/$1.state"
    fi ;;
esac
